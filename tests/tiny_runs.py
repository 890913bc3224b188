"""Folders as the verbs write them, made up: reports and examples of systems whose scores are known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinage.evaluation.example_scores import (
    ExampleScores,
    PartScores,
    references_fingerprint,
    write_example_scores,
)
from affinage.evaluation.metrics import metric
from affinage.report.report import (
    Cost,
    Hardware,
    Latency,
    ModelEntry,
    Provenance,
    Report,
    Score,
    Speedup,
    TrainingRun,
)

Rows = NDArray[np.float64]


def provenance(command: str, *, seed: int | None = 0) -> Provenance:
    return Provenance(
        affinage="0.1.0",
        python="3.11",
        torch="2.13",
        transformers="5.23",
        hardware=Hardware(cpu="Imaginary CPU", cores=2, memory_gib=8.0),
        command=f"affinage {command} …",
        date="2026-11-21T10:00:00+00:00",
        seed=seed,
        recipe_sha256=None,
        data={},
        seconds=1.0,
    )


def entry(path: Path | str, *, layers: int = 6, base: str | None = None) -> ModelEntry:
    return ModelEntry(
        name=Path(path).name,
        path=str(path),
        parameters=1_000_000 + 1_000_000 * layers,
        layers=layers,
        hidden_size=384,
        size_bytes=4_000_000 * layers,
        stored_as="fp32",
        base=base,
    )


def write_report(folder: Path, report: Report) -> Path:
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    return folder


def right(share: float, *, n: int = 400, seed: int = 0, like: Rows | None = None, agree: float = 0.8) -> Rows:
    """(n, 2) statistics of accuracy; with `like`, right about where that one is on a share of the examples."""
    random = np.random.default_rng(seed)
    values = (random.random(n) < share).astype(float)
    if like is not None:
        values = np.where(random.random(n) < agree, like[:, 0], values)
    return np.stack([values, np.ones(n)], axis=1)


def scores_of(name: str, task: str, rows: Mapping[str, Rows], *, seed: int | None, split: str = "test") -> list[Score]:
    return [
        Score(
            model=name,
            task=task,
            metric=key,
            value=float(metric(key).aggregate(values.sum(axis=0))),
            n=len(values),
            seeds=() if seed is None else (seed,),
            split=split,
        )
        for key, values in rows.items()
    ]


def write_tuned(
    folder: Path,
    base: str,
    rows: Mapping[str, Rows],
    *,
    task: str = "sentiment",
    seed: int = 0,
    split: str = "test",
    references: Sequence[Any] = "ab",
    layers: int = 6,
) -> Path:
    """A fine-tuned folder. `references` stand for the examples: pairing asks that they be equal."""
    report = Report(
        command="finetune",
        models=(entry(folder, base=base, layers=layers),),
        scores=tuple(scores_of(folder.name, task, rows, seed=seed, split=split)),
        provenance=provenance("finetune", seed=seed),
    )
    write_report(folder, report)
    part = PartScores(references_fingerprint(references), dict(rows))
    write_example_scores(folder, ExampleScores(task, {split: part}))
    return folder


def write_baseline(
    folder: Path,
    base: str,
    rows: Mapping[str, Rows],
    *,
    task: str = "sentiment",
    seed: int = 0,
    kind: str = "frozen embeddings",
    references: Sequence[Any] = "ab",
) -> Path:
    """A baseline folder whose better kind has these rows; the other scored nothing."""
    other = {"majority": "frozen embeddings", "frozen embeddings": "majority"}[kind]
    zero = {key: np.stack([0 * values[:, 0], *values.T[1:]], axis=1) for key, values in rows.items()}
    report = Report(
        command="baseline",
        models=(entry(folder, base=base, layers=0),),
        scores=(*scores_of(kind, task, rows, seed=seed), *scores_of(other, task, zero, seed=seed)),
        provenance=provenance("baseline", seed=seed),
    )
    write_report(folder, report)
    part = PartScores(references_fingerprint(references), dict(rows))
    write_example_scores(folder, ExampleScores(task, {"test": part}))
    return folder


def write_trained(folder: Path, *, teacher: str | None = None, layers: int = 6, taught_layers: int = 6) -> Path:
    """A pre-trained folder, or one distilled from `teacher`."""
    models = (entry(folder, layers=layers, base=teacher),)
    if teacher is not None:
        models = (models[0].model_copy(update={"name": "student"}), entry(teacher, layers=taught_layers))
    command = "distil" if teacher else "pretrain"
    names = ("loss", "held-out loss", "soft_kl", "mlm") if teacher else ("loss", "held-out loss", "mlm")
    curves = {name: tuple((step, 9 / step**0.2 + i) for step in range(10, 400, 30)) for i, name in enumerate(names)}
    training = TrainingRun(
        steps=400,
        tokens=1_000_000,
        seconds=60.0,
        losses={name: 3.0 for name in names if not name.startswith("held-out")},
        held_out={"loss": 3.1},
        curves=curves,
    )
    return write_report(
        folder, Report(command=command, models=models, training=training, provenance=provenance(command))
    )


def write_benchmark(folder: Path, paths: Sequence[str], *, ratio: float = 1.9) -> Path:
    """Every model after the first is `ratio` times as fast as the one before."""
    names = [Path(path).name for path in paths]
    cells = [(1, 16), (1, 128), (16, None)]
    report = Report(
        command="benchmark",
        models=tuple(entry(path) for path in paths),
        latency=tuple(
            Latency(
                model=name,
                engine="torch fp32",
                threads=2,
                batch=batch,
                length=length,
                p50_ms=20.0 / ratio**i,
                p95_ms=25.0 / ratio**i,
                tokens_per_second=6400 * ratio**i,
                runs=30,
            )
            for batch, length in cells
            for i, name in enumerate(names)
        ),
        speedups=tuple(
            Speedup(
                model=name,
                reference=names[0],
                engine="torch fp32",
                batch=batch,
                length=length,
                ratio=ratio**i,
                low=0.98 * ratio**i,
                high=1.02 * ratio**i,
            )
            for batch, length in cells
            for i, name in enumerate(names)
            if i
        ),
        costs=tuple(
            Cost(model=name, engine="torch fp32", load_seconds=0.5, peak_memory_bytes=300_000_000) for name in names
        ),
        provenance=provenance("benchmark"),
    )
    return write_report(folder, report)


def write_runs(root: Path) -> Path:
    """Teacher and student, pre-trained and timed; three seeds of each on three tasks, with their baselines.

    sentiment: the student below the teacher. nli: not informative. ner: not told apart.
    """
    write_trained(root / "teacher", layers=12)
    write_trained(root / "student", teacher="runs/teacher", layers=6, taught_layers=12)
    write_benchmark(root / "speed", ["runs/teacher", "runs/student"])
    for seed in range(3):
        teacher = right(0.9, seed=seed)
        student = right(0.7, seed=10 + seed, like=teacher)
        for system, rows in (("teacher", teacher), ("student", student)):
            out = root / f"{system}-sentiment-{seed}"
            write_tuned(out, f"runs/{system}", {"accuracy": rows}, seed=seed, layers=12 if system == "teacher" else 6)
        write_baseline(
            root / f"baseline-sentiment-{seed}", "runs/teacher", {"accuracy": right(0.5, seed=20)}, seed=seed
        )
        for system in ("teacher", "student"):
            rows = right(0.34, seed=30 + seed, like=right(0.34, seed=29))
            write_tuned(root / f"{system}-nli-{seed}", f"runs/{system}", {"accuracy": rows}, task="nli", seed=seed)
    guess = {"accuracy": right(0.34, seed=40)}
    write_baseline(root / "baseline-nli", "runs/teacher", guess, task="nli", kind="majority")
    counts = np.random.default_rng(1).integers(0, 3, (300, 3)).astype(float)
    counts[:, 1:] += counts[:, :1]
    better = counts.copy()
    better[:2, 0] += better[:2, 1] > better[:2, 0]
    for system, rows in (("teacher", better), ("student", counts)):
        metrics = {"entity_f1": rows, "token_overlap_f1": rows + 1}
        write_tuned(root / f"{system}-ner-0", f"runs/{system}", metrics, task="ner")
    poor = {"entity_f1": counts * [0.1, 1, 1], "token_overlap_f1": counts * [0.1, 1, 1]}
    write_baseline(root / "baseline-ner", "runs/teacher", poor, task="ner")
    return root
