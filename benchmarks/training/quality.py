"""What the cheaper ways of training cost in quality, at equal tokens: quality.py TEXT WORK.

From the shipped teacher, four passes over the first lines of TEXT (one text a line), three seeds a way; every student
is then measured by the same losses on the same lines that none of them saw. Finished runs
stay: run it again after a stop. Writes quality.json beside this file.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import run
from typing import Any

import torch

from affinage.distillation.objective import Objective
from affinage.models.checkpoint import load_masked_lm, load_tokenizer
from affinage.recipe import Recipe, Stage
from affinage.report.provenance import provenance
from affinage.report.report import Report
from affinage.workflows.corpus_stage import corpus_rows

HERE = Path(__file__).parent
TRAINING_LINES, HELD_OUT_LINES, SEEDS = 1500, 600, (0, 1, 2)
MASKED = "stages.0.losses.0.params.tokens=masked"
WAYS: dict[str, tuple[str, ...]] = {
    "all tokens": (),
    "masked tokens": (MASKED,),
    "masked tokens, 2 masks a row": (MASKED, "masking.variants=2", "teacher_cache=float16"),
    "masked tokens, 1 mask a row": (MASKED, "masking.variants=1", "teacher_cache=float16"),
}
COMMON = (
    "training.epochs=4",
    "training.batch_size=16",
    "training.learning_rate=3e-4",
    "training.evaluations=1",
    "student.dropout=0",
    "held_out=0.01",
)


def folder_of(work: Path, way: str, seed: int) -> Path:
    return work / f"{way.replace(', ', '-').replace(' ', '-')}-{seed}"


def train(work: Path, way: str, seed: int) -> None:
    """One student, on one thread."""
    out = folder_of(work, way, seed)
    if out.exists():
        return
    settings = [part for setting in (*COMMON, *WAYS[way]) for part in ("--set", setting)]
    command = ["affinage", "distil", "shipped:teacher", "--corpus", str(work / "train"), "--out", str(out), "--quiet"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    run([*command, *settings, "--seed", str(seed)], check=True, env=one_thread, capture_output=True)


def measure(work: Path, student: Path) -> dict[str, float]:
    """Means of the recipe's losses, KL at every token, on the held-out lines with masks that are always the same."""
    stage: Stage = Recipe.load("distilcamembert").stages[0]
    tokenizer = load_tokenizer("shipped:teacher")
    teacher, _ = load_masked_lm("shipped:teacher")
    model, _ = load_masked_lm(student)
    # Half of the lines are "held out" of the held-out ones, by their hash; both parts are measured.
    rows = corpus_rows(
        [work / "held_out" / "text.txt"],
        tokenizer,
        stage.model_copy(update={"held_out": 0.5}),
        folder=work / "held_out" / "tokens",
    )
    objective = Objective(model, stage.losses, teacher=teacher).eval()
    sums, counts = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        for part in (rows.train, rows.held_out):
            for start in range(0, len(part), 16):
                items = [part[0, row] for row in range(start, min(start + 16, len(part)))]
                batch = part.collate(items)
                sums += objective(**batch)[1].double()
                counts += objective.counts(batch).double()
    return dict(zip(objective.names, (sums / counts).tolist(), strict=True))


def main(text: Path, work: Path) -> None:
    lines = [line for line in text.read_text(encoding="utf-8").splitlines() if line.strip()]
    for part, start, count in (("train", 0, TRAINING_LINES), ("held_out", TRAINING_LINES, HELD_OUT_LINES)):
        (work / part).mkdir(parents=True, exist_ok=True)
        (work / part / "text.txt").write_text("\n".join(lines[start : start + count]) + "\n", encoding="utf-8")
    jobs = [(way, seed) for seed in SEEDS for way in WAYS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: train(work, *job), jobs))
    found: list[dict[str, Any]] = []
    for way, seed in jobs:
        report = Report.from_json((folder_of(work, way, seed) / "report.json").read_text(encoding="utf-8"))
        assert report.training is not None
        took = {"tokens": report.training.tokens, "seconds": report.training.seconds}
        found.append({"way": way, "seed": seed, **took, **measure(work, folder_of(work, way, seed))})
        print(found[-1])
    made = provenance(
        command="python benchmarks/training/quality.py TEXT WORK", seed=None, recipe_sha256=None, data={}, seconds=0.0
    )
    report_file = HERE / "quality.json"
    report_file.write_text(
        json.dumps({"runs": found, "provenance": made.model_dump(mode="json")}, indent=1, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
