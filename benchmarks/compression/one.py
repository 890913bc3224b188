"""One job of the experiment: compress, measure beside the teacher, and write the small result that is committed.

one.py JOB.json WORK RESULT.json, where JOB.json holds what `run.py` asks for. It goes on where it was stopped. A job of
the screen only runs the plan, whose ledger has the score on the valid part; one of the final is `affinage compress`.
"""

import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from affinage.compression.plan import Plan, step_of
from affinage.compression.run import State, check_plan, run_plan
from affinage.compression.space import trained_once
from affinage.errors import InputError
from affinage.evaluation.footprint import footprint, tensor_bytes
from affinage.models.checkpoint import load_model, load_tokenizer
from affinage.report.ledger import LedgerEntry
from affinage.report.provenance import provenance
from affinage.report.report import Report, Score
from affinage.runtime.side_by_side import ONNX, TORCH, Running, running, timed
from affinage.training.run_folder import RunFolder
from affinage.workflows.compress import compress
from affinage.workflows.compress_given import read_given

ROUNDS, SECONDS = 40, 8.0
HEAVIEST = 4
"""bytes of a float32 weight, in which the teacher's size is counted"""


def main(asked: dict[str, Any], work: Path, result: Path) -> None:
    began = time.perf_counter()
    torch.set_num_threads(1)
    plan, out, teacher = plan_of(asked), work / "compressed" / result.stem, work / asked["teacher"]
    whole = Report.from_json((teacher / "report.json").read_text(encoding="utf-8"))
    made = screened if asked["stage"] == "screen" else finished
    state, told = made(asked, plan, work, out, whole)
    p = provenance(command="", seed=asked["seed"], recipe_sha256=None, data={}, seconds=0)
    found = {
        **{key: asked[key] for key in ("language", "task", "stage", "name", "seed")},
        "plan": plan.model_dump(mode="json", exclude_defaults=True),
        **told,
        **measured(state, teacher),
        "conditions": {"affinage": p.affinage, "torch": p.torch, "cpu": p.hardware.cpu, "threads": 1, "date": p.date},
        "seconds": round(time.perf_counter() - began, 1),
    }
    result.parent.mkdir(parents=True, exist_ok=True)
    aside = result.with_suffix(".tmp")
    aside.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.rename(result)
    for folder in (out, Path(f"{out}.partial")):  # the figures stay, the weights can be made again
        shutil.rmtree(folder, ignore_errors=True)


def plan_of(asked: dict[str, Any]) -> Plan:
    """Trained once, after the last step that can be; what happens during training, in as many steps as it needs."""
    steps = [step_of(text) for text in asked["steps"]]
    trained = any(hasattr(step.build(), "on_step") for step in steps)
    settings = {
        "training.row_length": asked["length"],
        "training.batch_size": asked["batch"],
        "training.evaluations": 1,
    }
    base = Plan.of({"steps": ["int8"], "settings": settings, "seed": asked["seed"]})
    return trained_once(base, steps, recover=max(asked["recover"], asked["trained"] if trained else 0))


def screened(
    asked: Mapping[str, Any], plan: Plan, work: Path, out: Path, whole: Report
) -> tuple[State, dict[str, Any]]:
    """What the plan makes, and the scores on the valid part, by which it chose its best weights."""
    task, data = asked["task"], work / asked["data"]
    given = read_given(work / asked["student"], plan=plan, task=task, data=data, corpus=(), columns=None)
    ways = given.ways(plan, RunFolder.open(out, identity=given.identity(plan)), quiet=True)
    state, ledger = run_plan(plan, check_plan(plan, ways), given.start, ways)
    first = next(score for score in whole.scores if score.model != "baseline")
    scores = [
        {"model": name, "part": first.split, "value": entry.score}
        for name, entry in (("variant", ledger[-1]), ("student", ledger[0]))
    ]
    return state, said(
        first.metric, [*scores, *teachers(whole, first.metric, [first.split])], ledger, given.fingerprints
    )


def finished(
    asked: Mapping[str, Any], plan: Plan, work: Path, out: Path, whole: Report
) -> tuple[State, dict[str, Any]]:
    """What `affinage compress` makes, and its scores on every part."""
    if not out.exists():
        compress(work / asked["student"], plan=plan, task=asked["task"], data=work / asked["data"], out=out, quiet=True)
    report = Report.from_json((out / "report.json").read_text(encoding="utf-8"))
    main = report.scores[0].metric
    parts = list(dict.fromkeys(score.split for score in report.scores))
    names = {"compressed": "variant", "uncompressed": "student"}
    scores = [scored(names[score.model], score) for score in report.scores if score.metric == main]
    state = State(load_model(out), load_tokenizer(out))
    return state, said(main, [*scores, *teachers(whole, main, parts)], report.ledger, report.provenance.data)


def said(
    metric: str, scores: list[dict[str, Any]], ledger: tuple[LedgerEntry, ...], data: Mapping[str, str]
) -> dict[str, Any]:
    """What a result has of the scores, of the steps, and of the files (name -> sha256)."""
    files = {f"{Path(file).parent.name}/{Path(file).name}": one for file, one in data.items()}
    steps = [entry.model_dump(mode="json") for entry in ledger]
    return {"metric": metric, "scores": scores, "ledger": steps, "data": files}


def teachers(whole: Report, metric: str, parts: list[str]) -> list[dict[str, Any]]:
    """The scores of the teacher, from its own report."""
    return [scored("teacher", score) for score in whole.scores if score.metric == metric and score.split in parts]


def scored(name: str, score: Score) -> dict[str, Any]:
    """A score with its interval."""
    return {
        "model": name,
        "part": score.split,
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "n": score.n,
    }


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


if __name__ == "__main__":
    job, work, result = map(Path, sys.argv[1:])
    main(json.loads(job.read_text(encoding="utf-8")), work.resolve(), result.resolve())
