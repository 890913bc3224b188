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
from affinage.workflows.distil_task import distil_task
from tiny import save_tiny
from tiny_data import settings, write_corpus, write_task
from tiny_tasks import tuned_teacher

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
    overrides = settings(SETTINGS | {"training.batch_size": "4"})
    line = ["distil", "camembert-mlm", "--corpus", "texts", "--out", out, "--json", *overrides]
    return together(place, *program, *line, **variables)


def together(place: Path, *program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Two processes of `program`."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run(
        [*launch, *program],
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


def test_on_a_task(place: Path) -> None:
    """Eight rows: all of them in every step, whoever takes which."""
    data, teacher = write_task(place / "data", "sentiment"), tuned_teacher(place, "sentiment")
    (place / "mine.yaml").write_text(
        "name: mine\nsource: original\nkind: distil\nstages:\n"
        "- {name: layers, on: task, losses: [{name: hidden_mse}]}\n"
        "- {name: prediction, on: task, losses: [{name: task_soft_kl}, {name: task_labels}]}\n"
    )
    shared = {key: value for key, value in SETTINGS.items() if key not in ("losses", "held_out")}
    one = distil_task(
        teacher,
        task="sentiment",
        data=data,
        out=place / "task-alone",
        recipe=place / "mine.yaml",
        overrides=shared | {"training.batch_size": "8"},
        quiet=True,
    ).training
    line = ["distil", teacher.name, "--task", "sentiment", "--data", "data", "--recipe", "mine.yaml", "--json"]
    halves = settings(shared | {"training.batch_size": "4"})
    run = together(place, "-m", "affinage", *line, "--out", "task-ddp", *halves)
    assert run.returncode == 0, run.stderr
    both = Report.from_json(run.stdout).training
    assert one is not None and both is not None and both.tokens == one.tokens
    for name, points in one.curves.items():
        assert [v for _, v in both.curves[name]] == pytest.approx([v for _, v in points], rel=1e-4, abs=1e-6)
    weights, ours = (load_file(place / name / "model.safetensors") for name in ("task-alone", "task-ddp"))
    for name, weight in weights.items():
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=1e-5)
