"""One job of the experiment: compress, measure beside the teacher, and write the small result that is committed.

`run.py` asks for it; it goes on where it was stopped. The plan is run as `affinage compress` runs it, but only what the
experiment asks is scored: each step on the valid part in the screen, the last one on the test part in the final. What
student and teacher score, their own reports say.
"""

import json
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from affinage import __version__
from affinage.compression.plan import Plan, step_of
from affinage.compression.rehearsal import without_training
from affinage.compression.run import State, check_plan, run_plan
from affinage.compression.space import trained_once
from affinage.data.checksums import write_durably
from affinage.errors import InputError
from affinage.evaluation.example_scores import read_example_scores
from affinage.evaluation.footprint import footprint, tensor_bytes
from affinage.evaluation.metrics import metric
from affinage.evaluation.significance import estimates
from affinage.models.checkpoint import load_model, load_tokenizer, weights_fingerprint
from affinage.report.ledger import LedgerEntry
from affinage.report.provenance import cpu_name
from affinage.report.report import Report, Score
from affinage.runtime.side_by_side import ONNX, TORCH, Running, running, timed
from affinage.training.run_folder import RunFolder
from affinage.workflows.compress_given import read_given
from affinage.workflows.compress_ways import WithTask
from affinage.workflows.task_run import TaskRun

ROUNDS, SECONDS = 40, 8.0
HEAVIEST = 4
"""bytes of a float32 weight, in which the teacher's size is counted"""


def main(asked: dict[str, Any], work: Path, result: Path) -> None:
    began = time.perf_counter()
    torch.set_num_threads(1)
    plan, out = plan_of(asked), work / "compressed" / result.stem
    student, teacher = work / asked["student"], work / asked["teacher"]
    given = read_given(student, plan=plan, task=asked["task"], data=work / asked["data"], corpus=(), columns=None)
    folder = RunFolder.open(out, identity=given.identity(plan))
    mark = weights_fingerprint(student)[:16]  # of what every variant of this student starts from
    ways = given.ways(plan, folder, quiet=True, answers=work / "compressed" / f"answers-{mark}")
    assert isinstance(ways, WithTask)
    final = asked["stage"] == "final"
    if final:
        ways.score = lambda state: None  # type: ignore[assignment, method-assign, return-value]
    if asked["stage"] == "speed":
        untrained = without_training(plan, plan.checked(), given.start, ways.resources)
        write(told_of(asked) | measured(untrained, teacher), began, result)
        shutil.rmtree(folder.partial)
        return
    first = work / "compressed" / f"{mark}{'-final' if final else ''}.json"
    if first.exists() and ways.kept(0) is None:
        ways.keep(0, given.start, LedgerEntry.model_validate_json(first.read_text(encoding="utf-8")))
    state, ledger = run_plan(plan, check_plan(plan, ways), given.start, ways)
    write_durably(first, ledger[0].model_dump_json())
    found = {
        "plan": plan.model_dump(mode="json", exclude_defaults=True),
        "ledger": [entry.model_dump(mode="json") for entry in ledger],
        **(tested if final else validated)(ways.run_of(state), state, ledger, student, teacher),
        **measured(state, teacher),
        "data": {f"{Path(file).parent.name}/{Path(file).name}": one for file, one in given.fingerprints.items()},
    }
    write(told_of(asked) | found, began, result)
    shutil.rmtree(folder.partial)  # the figures stay, the weights can be made again


def told_of(asked: dict[str, Any]) -> dict[str, Any]:
    """Which job it was."""
    return {key: asked[key] for key in ("language", "task", "stage", "name", "seed")}


def write(found: dict[str, Any], began: float, result: Path) -> None:
    """The result with what it was made under, whole or not at all."""
    conditions = {
        "affinage": __version__, "torch": torch.__version__, "cpu": cpu_name(), "threads": 1,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    found |= {"conditions": conditions, "seconds": round(time.perf_counter() - began, 1)}
    result.parent.mkdir(parents=True, exist_ok=True)
    aside = result.with_suffix(".tmp")
    aside.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.rename(result)


def plan_of(asked: dict[str, Any]) -> Plan:
    """Trained once, after the last step that can be; what happens during training, in as many steps as it needs."""
    steps = [step_of(text) for text in asked["steps"]]
    trained = any(hasattr(step.build(), "on_step") for step in steps)
    settings = {
        "training.row_length": asked["length"],
        "training.batch_size": asked["batch"],
        "training.evaluations": 1,
    }
    if asked["stage"] != "final":  # the model is not scored before training, and what is no better is not taken back
        settings["guards.no_progress"] = "off"
    base = Plan.of({"steps": ["int8"], "settings": settings, "seed": asked["seed"]})
    return trained_once(base, steps, recover=max(asked["recover"], asked["trained"] if trained else 0))


def validated(
    run: TaskRun, state: State, ledger: Sequence[LedgerEntry], student: Path, teacher: Path
) -> dict[str, Any]:
    """By the task's first metric on the valid part: the variant, the student as it was and the teacher."""
    metric_name, part = run.task.metrics[0], run.data.valid_split
    scores: list[dict[str, Any]] = [{"model": "variant", "part": part, "value": ledger[-1].score}]
    return {"metric": metric_name, "scores": scores + theirs(student, teacher, metric_name, part)}


def tested(run: TaskRun, state: State, ledger: Sequence[LedgerEntry], student: Path, teacher: Path) -> dict[str, Any]:
    """The same on the test part, and what is kept of the teacher's score, paired over its examples."""
    metric_name, part = run.task.metrics[0], run.data.test_split
    if run.task.no_answer:
        run.tune_no_answer_(state.model)
    own = run.evaluate(state.model, run.data.test, name="variant", split=part)
    score = next(score for score in own.scores if score.metric == metric_name)
    whole = read_example_scores(teacher).parts[part]
    assert whole.fingerprint == own.examples.fingerprint
    ours, base = estimates(metric(metric_name), [[own.examples.rows[metric_name]], [whole.rows[metric_name]]])
    kept = ours.over(base)
    assert kept is not None
    low, high = kept.interval
    scores = [figures("variant", score), *theirs(student, teacher, metric_name, part)]
    return {"metric": metric_name, "scores": scores, "kept": {"value": kept.value, "low": low, "high": high}}


def theirs(student: Path, teacher: Path, metric_name: str, part: str) -> list[dict[str, Any]]:
    """What student and teacher scored, uncompressed."""
    reports = {"student": reported(student), "teacher": reported(teacher)}
    return [told(name, report, metric_name, part) for name, report in reports.items()]


def reported(folder: Path) -> Report:
    return Report.from_json((folder / "report.json").read_text(encoding="utf-8"))


def told(name: str, report: Report, metric_name: str, part: str) -> dict[str, Any]:
    """What a run's own report says of its model, which is the first in it."""
    return figures(name, next(s for s in report.scores if s.metric == metric_name and s.split == part))


def figures(name: str, score: Score) -> dict[str, Any]:
    """A score with its interval."""
    own = score.model_dump(include={"value", "low", "high", "n"})
    return {"model": name, "part": score.split, **own}


def measured(state: State, teacher: Path) -> dict[str, Any]:
    """Teacher in plain transformers, float32; the variant in ONNX Runtime where it has a graph: one interleaved run."""
    first = load_model(teacher)
    theirs = running(first, load_tokenizer(teacher), TORCH)
    ours = ready(state)
    timing = timed([theirs, ours], repeats=ROUNDS, seconds=SECONDS)
    ratio, low, high = timing.ratio(1)
    parameters = footprint(first).parameters
    return {
        "parameters": footprint(state.model).parameters,
        "size_bytes": tensor_bytes(state.model),
        "teacher_bytes": HEAVIEST * parameters,
        "engine": ours.engine,
        "latency_ms": timing.quantile_ms(1, 0.5),
        "teacher_ms": timing.quantile_ms(0, 0.5),
        "speedup": {"ratio": ratio, "low": low, "high": high},
        "peak_memory_bytes": ours.peak_memory_bytes(),
    }


def ready(state: State) -> Running:
    try:
        return running(state.model, state.tokenizer, ONNX)
    except InputError:
        return running(state.model, state.tokenizer, TORCH)
