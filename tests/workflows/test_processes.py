"""Two processes that share a batch take the step that one process takes with the whole of it."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from affinage.report.report import Report
from affinage.workflows.distil import distil
from tiny import save_tiny
from tiny_data import write_corpus

SETTINGS = {
    "student.dropout": "0",
    "held_out": "0.1",
    "training.row_length": "32",
    "training.precision": "fp32",
    "training.max_steps": "2",
    "training.evaluations": "1",
}


def test_two_processes_are_as_one(tmp_path: Path) -> None:
    teacher = save_tiny(tmp_path)
    write_corpus(tmp_path / "texts")
    alone = distil(
        teacher, corpus=[tmp_path / "texts"], out=tmp_path / "one", overrides=SETTINGS | {"training.batch_size": "8"}
    )
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    arguments = [str(teacher), "--corpus", str(tmp_path / "texts"), "--out", str(tmp_path / "two"), *settings]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run = subprocess.run(
        [*launch, "-m", "affinage", "distil", *arguments, "--set", "training.batch_size=4", "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    together = Report.from_json(run.stdout)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-6)
    assert alone.training is not None
    assert together.training is not None
    assert together.training.tokens == alone.training.tokens
    for name, value in alone.training.held_out.items():
        assert abs(together.training.held_out[name] - value) < 1e-4, name
