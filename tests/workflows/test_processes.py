"""Two processes that share a batch take the steps that one process takes with the whole of it: DDP, and FSDP."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from affinage.report.report import Report
from affinage.workflows.distil import distil
from tiny import save_tiny
from tiny_data import settings, write_corpus

SETTINGS = {
    "losses": "[{name: soft_kl}, {name: mlm}, {name: hidden_mse}]",  # the last has weights of its own
    "student.dropout": "0",
    "held_out": "0.1",
    "training.row_length": "32",
    "training.precision": "fp32",
    "training.max_steps": "4",
    "training.evaluations": "2",
    "training.logging_steps": "1",
    # AdamW as it is forgives a gradient that is twice too large.
    "training.adam_epsilon": "1",
    "training.learning_rate": "0.1",
    "training.max_grad_norm": "100",
}
LAYERS = {"FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_TRANSFORMER_CLS_TO_WRAP": "CamembertLayer"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    save_tiny(folder)
    write_corpus(folder / "texts")
    return folder


@pytest.fixture(scope="module")
def alone(place: Path) -> Report:
    overrides = SETTINGS | {"training.batch_size": "8"}
    return distil(place / "camembert-mlm", corpus=[place / "texts"], out=place / "alone", overrides=overrides)


def two(place: Path, out: str, *program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A distillation by two processes of `program`, each with half of the batch."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *program]
    overrides = settings(SETTINGS | {"training.batch_size": "4"})
    return subprocess.run(
        [*launch, "distil", "camembert-mlm", "--corpus", "texts", "--out", out, "--json", *overrides],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
    )


def assert_as_one(place: Path, out: str, alone: Report, run: subprocess.CompletedProcess[str]) -> None:
    """The same losses at every step, and the same weights."""
    assert run.returncode == 0, run.stderr
    one, together = alone.training, Report.from_json(run.stdout).training
    assert one is not None
    assert together is not None
    assert together.tokens == one.tokens
    assert together.curves.keys() == one.curves.keys()
    assert [step for step, _ in one.curves["loss"]] == [1, 2, 3, 4]
    for name, points in one.curves.items():
        assert [step for step, _ in together.curves[name]] == [step for step, _ in points]
        assert [value for _, value in together.curves[name]] == pytest.approx(
            [v for _, v in points], rel=1e-5, abs=1e-7
        )
    weights, ours = (load_file(place / name / "model.safetensors") for name in ("alone", out))
    assert ours.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=1e-6)


def test_each_with_all_weights(place: Path, alone: Report) -> None:
    assert_as_one(place, "ddp", alone, two(place, "ddp", "-m", "affinage"))


def test_each_with_its_share_of_the_weights_killed_and_resumed(place: Path, alone: Report) -> None:
    program = str(Path(__file__).parents[1] / "fsdp_on_cpu.py")
    killed = two(place, "fsdp", program, DIES="", **LAYERS)
    assert killed.returncode
    assert [path.name for path in (place / "fsdp.partial" / "checkpoints").iterdir()] == ["checkpoint-2"]
    assert_as_one(place, "fsdp", alone, two(place, "fsdp", program, **LAYERS))
