"""What ways of training come to at equal tokens, the plain loop among them: quality.py TEXT WORK.

From the shipped teacher, three passes over the first lines of TEXT (one text a line) that fit in a row, three seeds a
way; every student is then measured by the same losses on the same lines that none of them saw. Finished runs stay: run
it again after a stop. Writes quality.json beside this file.
"""

import json
import math
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import run
from typing import Any

import torch
from plain import distilcamembert
from shapes import LENGTH
from transformers import DataCollatorForLanguageModeling, get_linear_schedule_with_warmup

from affinage.data.corpus import is_held_out
from affinage.distillation.objective import Objective
from affinage.distillation.student import make_student
from affinage.models.checkpoint import load_masked_lm, load_tokenizer
from affinage.recipe import Recipe, Stage, StudentSpec
from affinage.report.provenance import provenance
from affinage.report.report import Report
from affinage.workflows.corpus_stage import corpus_rows

HERE = Path(__file__).parent
TRAINING_LINES, HELD_OUT_LINES, SEEDS = 1400, 600, (0, 1, 2)
EPOCHS, ROWS, RATE, HELD_OUT = 3, 16, 3e-4, 0.01
CHARACTERS = range(20, 401)
"""of a line: none is cut at the 128 tokens of a row"""
MASKED = "stages.0.losses.0.params.tokens=masked"
PLAIN = "plain loop"
WAYS: dict[str, tuple[str, ...]] = {
    PLAIN: (),
    "all tokens": (),
    "masked tokens": (MASKED,),
    "masked tokens, cached teacher": (MASKED, "masking.variants=1", "teacher_cache=float16"),
}
COMMON = (
    f"training.epochs={EPOCHS}",
    f"training.batch_size={ROWS}",
    f"training.learning_rate={RATE}",
    "training.evaluations=1",
    "training.logging_steps=5",
    "student.dropout=0",
    f"held_out={HELD_OUT}",
)


def folder_of(work: Path, way: str, seed: int) -> Path:
    return work / f"{way.replace(', ', '-').replace(' ', '-')}-{seed}"


def train(work: Path, way: str, seed: int) -> None:
    """One student, on one thread."""
    out = folder_of(work, way, seed)
    if out.exists():
        return
    if way == PLAIN:
        command = [sys.executable, __file__, PLAIN, str(work), str(seed), str(out)]
        run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
        return
    settings = [part for setting in (*COMMON, *WAYS[way]) for part in ("--set", setting)]
    command = ["affinage", "distil", "shipped:teacher", "--corpus", str(work / "train"), "--out", str(out), "--quiet"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    run([*command, *settings, "--seed", str(seed)], check=True, env=one_thread, capture_output=True)


def train_plain(work: Path, seed: int, out: Path) -> None:
    """The loop of plain.py with the recipe's optimizer; as many steps as ours, the lines shared out over them."""
    tokenizer = load_tokenizer("shipped:teacher")
    teacher, _ = load_masked_lm("shipped:teacher")
    torch.manual_seed(seed)
    student, _ = make_student(teacher.eval().requires_grad_(False), StudentSpec(dropout=0))
    lines = (work / "train" / "text.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not is_held_out(line, HELD_OUT)]
    ids = tokenizer(kept)["input_ids"]
    each = math.ceil(sum(map(len, ids)) / (ROWS * LENGTH))
    settings = Recipe.load("distilcamembert").stages[0].training
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=RATE, betas=(settings.adam_beta1, settings.adam_beta2), eps=settings.adam_epsilon
    )
    steps = EPOCHS * each
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(settings.warmup * steps), steps)
    collate = DataCollatorForLanguageModeling(tokenizer)
    began, losses = time.perf_counter(), []
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(ids)).tensor_split(each):
            inputs = dict(collate([{"input_ids": ids[i]} for i in chosen.tolist()]))
            loss = distilcamembert(student.train(), teacher, inputs)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    seconds = time.perf_counter() - began
    student.save_pretrained(out)
    tokenizer.save_pretrained(out)
    noted = {"tokens": EPOCHS * sum(map(len, ids)), "seconds": seconds, "losses": losses}
    (out / "plain.json").write_text(json.dumps(noted), encoding="utf-8")


def trained(out: Path) -> dict[str, Any]:
    """Tokens, seconds and the mean training loss of each five steps."""
    if (noted := out / "plain.json").is_file():
        said = json.loads(noted.read_text(encoding="utf-8"))
        fives = [said["losses"][i : i + 5] for i in range(0, len(said["losses"]), 5)]
        return {**said, "losses": [sum(five) / len(five) for five in fives if len(five) == 5]}
    found = Report.from_json((out / "report.json").read_text(encoding="utf-8")).training
    assert found is not None
    return {"tokens": found.tokens, "seconds": found.seconds, "losses": [value for _, value in found.curves["loss"]]}


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
    lines = [line for line in text.read_text(encoding="utf-8").splitlines() if len(line.strip()) in CHARACTERS]
    for part, start, count in (("train", 0, TRAINING_LINES), ("held_out", TRAINING_LINES, HELD_OUT_LINES)):
        (work / part).mkdir(parents=True, exist_ok=True)
        (work / part / "text.txt").write_text("\n".join(lines[start : start + count]) + "\n", encoding="utf-8")
    jobs = [(way, seed) for seed in SEEDS for way in WAYS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: train(work, *job), jobs))
    found: list[dict[str, Any]] = []
    for way, seed in jobs:
        out = folder_of(work, way, seed)
        found.append({"way": way, "seed": seed, **trained(out), **measure(work, out)})
        print(found[-1])
    made = provenance(
        command="python benchmarks/training/quality.py TEXT WORK", seed=None, recipe_sha256=None, data={}, seconds=0.0
    )
    report_file = HERE / "quality.json"
    report = {"runs": found, "held_out_lines": HELD_OUT_LINES, "provenance": made.model_dump(mode="json")}
    report_file.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == PLAIN:
        train_plain(Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
