"""`--dry-run`: its figures are those of the run it stands for, and it leaves nothing behind."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from affinage.cli.app import run
from affinage.data import sample
from affinage.errors import InputError
from affinage.workflows import dry_run as module
from affinage.workflows.distil import distil
from affinage.workflows.dry_run import distil_dry_run, pretrain_dry_run
from tiny import save_tiny
from tiny_data import SHAPE, settings, write_corpus

SETTINGS = {
    "held_out": "0.1",
    "student.dropout": "0",
    "training.row_length": "32",
    "training.batch_size": "4",
    "training.precision": "fp32",
    "training.evaluations": "1",
    "guards.bad_teacher": "off",  # a random teacher is worse than chance
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A teacher and texts; nothing else may be there at the end, nor in the folder for temporary files."""
    folder, temporary = tmp_path / "here", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    write_corpus(folder / "texts", lines=80)
    save_tiny(folder)
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    yield folder
    assert sorted(folder.rglob("*")) == before
    assert not [path for path in temporary.iterdir() if "torchelastic" not in path.name], "that is the launcher's"


@pytest.mark.usefixtures("place")
def test_of_a_distillation(tmp_path: Path) -> None:
    found = distil_dry_run("camembert-mlm", corpus=["texts"], out="out", overrides=SETTINGS, quiet=True)
    real = distil("camembert-mlm", corpus=["texts"], out=tmp_path / "out", overrides=SETTINGS, quiet=True)
    assert real.training is not None
    assert found.steps == real.training.steps
    assert found.corpus_tokens is not None
    assert 0 <= real.training.tokens - found.corpus_tokens < 4 * 32, "the run counts its last step as a full one"
    assert found.student_parameters == real.models[0].parameters
    assert found.teacher_parameters == real.models[1].parameters
    assert (found.corpus_estimated, found.corpus_share, found.precision, found.processes) == (False, 1.0, "fp32", 1)
    # by hand: 2 and 4 layers of width 16, 32 tokens a row, 150 pieces
    layer = 2 * (4 * 16**2 + 2 * 16 * 32) + 4 * 32 * 16
    assert found.flops_per_token == 3 * 2 * layer + 4 * layer + 4 * 2 * 16 * (16 + 150)
    assert found.steps_timed == 8
    assert 0 < found.row_fill <= 1
    assert found.tokens_per_step <= 4 * 32
    assert found.tokens_per_second == pytest.approx(found.tokens_per_step / found.step_seconds)
    assert found.training_seconds == pytest.approx(found.steps * found.step_seconds)
    assert found.overhead_share is not None and 0 < found.overhead_share < 1
    assert real.training.overhead_share is not None and 0 < real.training.overhead_share < 1
    assert found.utilisation == pytest.approx(found.tokens_per_second * found.flops_per_token / found.peak_flops)
    assert found.planned_memory.weights == 4 * found.student_parameters
    assert found.measured_memory_bytes > found.planned_memory.total


@pytest.mark.usefixtures("place")
def test_of_pre_training_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["pretrain", "texts", "--out", "out", "--dry-run", *settings(SETTINGS | SHAPE)]
    assert run([*line, "--json", "--quiet", "--max-steps", "1000"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert (found["command"], found["steps"], found["teacher_parameters"]) == ("pretrain", 1000, None)
    assert found["training_seconds"] == pytest.approx(1000 * found["step_seconds"])
    assert found["planned_memory"]["total"] > 16 * found["student_parameters"]


@pytest.mark.usefixtures("place")
def test_a_big_corpus_is_sampled_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = distil_dry_run("camembert-mlm", corpus=["texts"], out="out", overrides=SETTINGS, quiet=True)
    monkeypatch.setattr(sample, "WHOLE_BYTES", 100)
    monkeypatch.setattr(module, "SAMPLE_BYTES", 6_000)
    assert run(["distil", "camembert-mlm", "--corpus", "texts", "--out", "out", "--dry-run", *settings(SETTINGS)]) == 0
    assert "estimated from" in capsys.readouterr().out
    found = distil_dry_run("camembert-mlm", corpus=["texts"], out="out", overrides=SETTINGS, quiet=True)
    assert found.corpus_estimated
    assert found.corpus_share is not None
    assert 0.3 < found.corpus_share < 0.8
    assert found.corpus_tokens == pytest.approx(counted.corpus_tokens, rel=0.1)
    assert found.steps == pytest.approx(counted.steps, rel=0.15)


@pytest.mark.usefixtures("place")
def test_of_a_stream_nobody_knows_the_length() -> None:
    overrides = SETTINGS | {"streaming": "true", "training.max_steps": "30"}
    found = distil_dry_run("camembert-mlm", corpus=["texts"], out="out", overrides=overrides, quiet=True)
    assert (found.corpus_tokens, found.steps, found.preparation_seconds) == (None, 30, None)


@pytest.mark.usefixtures("place")
def test_it_is_refused_as_the_run_would_be() -> None:
    strict = SETTINGS | {"guards.bad_teacher": "stop", "masking.probability": "0.5", "held_out": "0.4"}
    with pytest.raises(InputError, match="a student would learn nothing from it"):
        distil_dry_run("camembert-mlm", corpus=["texts"], out="out", overrides=strict, quiet=True)
    with pytest.raises(InputError, match="output folder 'texts' exists"):
        pretrain_dry_run(["texts"], out="texts", overrides=SETTINGS | SHAPE, quiet=True)
    with pytest.raises(InputError, match=r"training\.row_length 600 exceeds"):
        distil_dry_run(
            "camembert-mlm", corpus=["texts"], out="out", overrides=SETTINGS | {"training.row_length": "600"}
        )


@pytest.mark.usefixtures("place")
def test_two_processes_make_one_plan(tmp_path: Path) -> None:
    alone = distil_dry_run("camembert-mlm", corpus=["texts"], out="out", overrides=SETTINGS, quiet=True)
    line = ["camembert-mlm", "--corpus", "texts", "--out", "out", "--dry-run", "--json", *settings(SETTINGS)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, "-m", "affinage", "distil", *line],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "tmp")},
    )
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)
    assert together["processes"] == 2
    assert together["corpus_tokens"] == alone.corpus_tokens
    assert together["tokens_per_step"] == pytest.approx(2 * alone.tokens_per_step, rel=0.05)
    assert alone.steps is not None
    assert together["steps"] == -(-alone.steps // 2)
    assert set(together) == set(asdict(alone))
