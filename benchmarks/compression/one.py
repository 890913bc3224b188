"""One job of the experiment: compress, measure beside the teacher, and write the small result that is committed.

one.py JOB.json WORK RESULT.json, where JOB.json holds what `run.py` asks for. It goes on where it was stopped.
"""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from affinage.compression.plan import Plan, step_of
from affinage.compression.space import trained_once
from affinage.errors import InputError
from affinage.evaluation.footprint import footprint, tensor_bytes
from affinage.models.checkpoint import load_model, load_tokenizer
from affinage.report.report import Report
from affinage.runtime.side_by_side import ONNX, TORCH, Running, running, timed
from affinage.workflows.compress import compress

ROUNDS, SECONDS = 40, 8.0
HEAVIEST = 4
"""bytes of a float32 weight, in which the teacher's size is counted"""


def main(asked: dict[str, Any], work: Path, result: Path) -> None:
    began = time.perf_counter()
    torch.set_num_threads(1)
    plan, out = plan_of(asked), work / "compressed" / result.stem
    student, teacher = work / asked["student"], work / asked["teacher"]
    if not out.exists():
        data = work / asked["data"]
        compress(student, plan=plan, task=asked["task"], data=data, out=out, quiet=True)
    report = Report.from_json((out / "report.json").read_text(encoding="utf-8"))
    whole = Report.from_json((teacher / "report.json").read_text(encoding="utf-8"))
    found = told(asked, plan, report, whole) | measured(out, teacher)
    found["seconds"] = round(time.perf_counter() - began, 1)
    result.parent.mkdir(parents=True, exist_ok=True)
    aside = result.with_suffix(".tmp")
    aside.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.rename(result)
    shutil.rmtree(out)  # the figures stay, the weights can be made again


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


def told(asked: dict[str, Any], plan: Plan, report: Report, whole: Report) -> dict[str, Any]:
    """What the run says: scores of variant, student as it was, and teacher; the steps, the conditions."""
    main = report.scores[0].metric
    parts = list(dict.fromkeys(score.split for score in report.scores))
    scores = [
        {"model": {"compressed": "variant", "uncompressed": "student"}[s.model], "part": s.split, "value": s.value,
         "low": s.low, "high": s.high, "n": s.n}
        for s in report.scores if s.metric == main
    ]  # fmt: skip
    scores += [
        {"model": "teacher", "part": s.split, "value": s.value, "low": s.low, "high": s.high, "n": s.n}
        for s in whole.scores if s.metric == main and s.split in parts
    ]  # fmt: skip
    p = report.provenance
    return {
        **{key: asked[key] for key in ("language", "task", "stage", "name", "seed")},
        "plan": plan.model_dump(mode="json", exclude_defaults=True),
        "metric": main,
        "scores": scores,
        "ledger": [entry.model_dump(mode="json") for entry in report.ledger],
        "conditions": {"affinage": p.affinage, "torch": p.torch, "cpu": p.hardware.cpu, "threads": 1, "date": p.date,
                       "data": {f"{Path(file).parent.name}/{Path(file).name}": one for file, one in p.data.items()}},
    }  # fmt: skip


def measured(out: Path, teacher: Path) -> dict[str, Any]:
    """Teacher in plain transformers, float32; the variant in ONNX Runtime where it has a graph: one interleaved run."""
    made, first = load_model(out), load_model(teacher)
    theirs = running(first, load_tokenizer(teacher), TORCH)
    ours = ready(out)
    timing = timed([theirs, ours], repeats=ROUNDS, seconds=SECONDS)
    ratio, low, high = timing.ratio(1)
    parameters = footprint(first).parameters
    return {
        "parameters": footprint(made).parameters,
        "size_bytes": tensor_bytes(made),
        "teacher_bytes": HEAVIEST * parameters,
        "engine": ours.engine,
        "latency_ms": timing.quantile_ms(1, 0.5),
        "teacher_ms": timing.quantile_ms(0, 0.5),
        "speedup": {"ratio": ratio, "low": low, "high": high},
        "peak_memory_bytes": ours.peak_memory_bytes(),
    }


def ready(folder: Path) -> Running:
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    try:
        return running(model, tokenizer, ONNX)
    except InputError:
        return running(model, tokenizer, TORCH)


if __name__ == "__main__":
    job, work, result = map(Path, sys.argv[1:])
    main(json.loads(job.read_text(encoding="utf-8")), work.resolve(), result.resolve())
