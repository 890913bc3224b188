"""affinage's own training on the shapes that plain.py measures: ours.py WAY OBJECTIVE TEXTS SECONDS.

Under torchrun every process reports for itself; tokens are those of all of them. Prints as plain.py does.
"""

import json
import math
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from plain import Clock
from shapes import FILL, LENGTH, ROWS, WARM_UP, models, tokenizer

from affinage.distillation.kernels import use_kernels_
from affinage.distillation.objective import Objective
from affinage.models.quickening import quicken_
from affinage.recipe import Component, Masking, Stage, Training
from affinage.training.allocator import keep_big_buffers
from affinage.training.arguments import training_arguments
from affinage.training.processes import processes
from affinage.training.run_folder import RunFolder
from affinage.training.trainer import SumTrainer
from affinage.workflows.corpus_stage import corpus_rows
from affinage.workflows.teacher_states import teacher_cache

OBJECTIVES = {
    "mlm": (Component(name="mlm"),),
    "distilcamembert": (
        Component(name="soft_kl", weight=0.5),
        Component(name="cosine_distance", weight=0.3),
        Component(name="mlm", weight=0.2),
    ),
    "tinybert": (Component(name="hidden_mse"), Component(name="attention_score_mse")),
}
WAYS = ("affinage", "affinage, masked tokens", "affinage, cached teacher")
"""the second: vocabulary losses on the tokens to guess alone; the third: that, and the teacher's states on disk"""


def stage_of(way: str, objective: str) -> Stage:
    """What a recipe would say. A step has as many real tokens as one of the plain loops."""
    losses = OBJECTIVES[objective]
    if way != "affinage":
        losses = tuple(
            c.model_copy(update={"params": {"tokens": "masked"}}) if c.name == "soft_kl" else c for c in losses
        )
    cached = way == "affinage, cached teacher"
    return Stage(
        name="measured",
        losses=losses,
        masking=Masking(variants=1 if cached else None),
        held_out=0.05,
        teacher_cache="float16" if cached else "off",
        training=Training(
            batch_size=max(1, round(ROWS * FILL / processes().num_processes)), row_length=LENGTH, epochs=1000
        ),
    )


def main(way: str, objective: str, texts: Path, seconds: float) -> dict[str, Any]:
    torch.manual_seed(0)
    keep_big_buffers()
    student, teacher = models(objective)
    stage = stage_of(way, objective)
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder(Path(name) / "out", Path(name) / "out.partial", False)
        folder.checkpoints.mkdir(parents=True)
        rows = corpus_rows([texts], tokenizer(), stage, folder=folder.partial / "tokens")
        train = rows.train
        cache = None
        if teacher is not None:
            cache = teacher_cache(stage, train, teacher, folder=folder.partial / "teacher", identity={})
        # What is measured with a cache is the epochs that read it.
        steps = math.ceil(len(train) / stage.training.batch_size / processes().num_processes)
        quicken_(student)
        clock = Clock(seconds, warm_up=WARM_UP if cache is None else steps)
        objective = Objective(student, stage.losses, teacher=teacher, cache=cache)
        use_kernels_(objective, stage.training, tokens=math.inf, vocabulary=len(tokenizer()))  # as in a long run
        trainer = SumTrainer(
            objective,
            training_arguments(
                stage.training,
                folder=folder,
                steps=1_000_000,
                eval_strategy="no",
                save_strategy="no",
                lr_scheduler_type="constant",
                warmup_steps=0,
            ),
            rows=train,
            held_out=rows.held_out,
            tokenizer=tokenizer(),
            callbacks=[clock],
        )
        trainer.train()
        each = train.tokens / len(train) * stage.training.batch_size * processes().num_processes
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"tokens": each * clock.steps, "seconds": clock.spent, "losses": logged}


if __name__ == "__main__":
    found = main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = json.dumps({**found, "peak_memory_bytes": peak})
    # One write, and several processes do not print into each other's lines.
    os.write(1, (line + "\n").encode())
