"""The share of training that is not arithmetic, for the shipped models and texts: overhead.py OBJECTIVE [STEPS].

OBJECTIVE: distilcamembert, tinybert or mlm. Prints one line of JSON: the share of the time between the first step and
the last that data, masks, progress and logs took (aim: below 0.03), and real tokens a second.
"""

import json
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from affinage.workflows.distil import distil
from affinage.workflows.pretrain import pretrain

AIM = 0.03
SHARED = {
    "training.batch_size": "16",
    "training.evaluations": "1",
    "held_out": "0.01",
    "guards.bad_teacher": "off",
    "guards.no_progress": "off",
}
RECIPES = {"distilcamembert": "distilcamembert", "tinybert": "tinybert-4"}
LAYERS = "3"
"""of the student: tinybert-4's four do not divide the six of the teacher that comes with affinage"""


def write_texts(path: Path) -> None:
    """The reviews and articles that come with affinage, one a line."""
    data = resources.files("affinage.assets") / "data"
    lines = set()
    for task, column in (("sentiment", "text"), ("qa", "context")):
        text = (data / task / "train.jsonl").read_text(encoding="utf-8")
        lines |= {" ".join(json.loads(line)[column].split()) for line in text.splitlines()}
    path.write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")


def main(objective: str, steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        texts, out = Path(name) / "texts.txt", Path(name) / "out"
        write_texts(texts)
        more = {**SHARED, "training.max_steps": str(steps)}
        if objective == "mlm":
            more["student.tokenizer"] = "null"
            report = pretrain([texts], init_from="shipped:teacher", out=out, overrides=more, quiet=True)
        else:
            recipe = RECIPES[objective]
            more["student.num_hidden_layers"] = LAYERS
            report = distil("shipped:teacher", corpus=[texts], out=out, recipe=recipe, overrides=more, quiet=True)
    run, machine = report.training, report.provenance.hardware
    assert run is not None and run.overhead_share is not None
    return {
        "objective": objective,
        "steps": run.steps,
        "overhead_share": round(run.overhead_share, 4),
        "within_aim": run.overhead_share < AIM,
        "tokens_per_second": round(run.tokens / run.seconds),
        "cpu": machine.cpu,
        "threads": report.provenance.threads,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 45)))
