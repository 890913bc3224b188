"""The command line as a person runs it, in processes of their own: the road, Ctrl-C, a full disk, a place one may not
write to.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from affinage.report.report import Report
from tiny import save_tiny
from tiny_data import ON_TEXT, SHAPE, STEPS, same_weights, settings, write_corpus, write_task

Line = tuple[str, ...]
Affinage = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "texts")
    write_task(tmp_path / "reviews", "sentiment")
    save_tiny(tmp_path, "camembert", "mlm").rename(tmp_path / "teacher")
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "affinage", *arguments]


@pytest.fixture
def affinage(place: Path) -> Affinage:
    def call(*arguments: str, code: int = 0, file_size: int | None = None) -> subprocess.CompletedProcess[str]:
        line = command(*arguments)
        if file_size is not None:
            line = ["prlimit", f"--fsize={file_size}", *line]
        done = subprocess.run(line, cwd=place, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        for noise in ("Warning", "it/s]", "LOAD REPORT", "Loading weights", "Some weights"):
            assert noise not in done.stderr + done.stdout
        return done

    return call


def test_the_road(affinage: Affinage, place: Path) -> None:
    made = affinage("pretrain", "texts", "--out", "made", *settings({**ON_TEXT, **SHAPE}))
    assert made.stdout.startswith("model")
    assert "pre-training  step 2/2" in made.stderr
    assert made.stderr.endswith("saved in made\n")

    distilled = affinage("distil", "made", "--corpus", "texts", "--out", "student", "--json", *settings(ON_TEXT))
    report = Report.from_json(distilled.stdout)
    assert [m.layers for m in report.models] == [2, 4]
    assert report.provenance.command.startswith("affinage distil made --corpus texts --out student --json --set ")
    assert "distillation  step 2/2" in distilled.stderr

    data = ("--data", "reviews")
    quiet = affinage(
        "finetune", "student", "--task", "sentiment", *data, "--out", "tuned", "--json", "-q", *settings(STEPS)
    )
    assert quiet.stderr == ""
    scores = Report.from_json(quiet.stdout).scores

    evaluated = affinage("evaluate", "tuned", *data, "--json", "-q")
    assert evaluated.stderr == ""
    again = Report.from_json(evaluated.stdout).scores
    assert [s.value for s in again] == [s.value for s in scores if s.split == "test"]

    answer = affinage("predict", "tuned", "Une cave sombre.", "--json")
    assert json.loads(answer.stdout)["label"] in ("negative", "positive")
    assert answer.stderr == ""
    assert not list(place.glob("*.partial"))


LONG = {**ON_TEXT, "training.max_steps": "100", "training.evaluations": "50", "training.logging_steps": "1"}
DISTIL: Line = ("distil", "teacher", "--corpus", "texts", *settings(LONG))


def test_ctrl_c_and_the_same_command_again(affinage: Affinage, place: Path) -> None:
    process = subprocess.Popen(
        command(*DISTIL, "--out", "cut"), cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list((place / "cut.partial").glob("checkpoints/checkpoint-*/trainer_state.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert err.endswith("error: interrupted; run the same command again to resume\n")
    assert "Traceback" not in err
    assert not (place / "cut").exists()
    assert list((place / "cut.partial" / "checkpoints").glob("checkpoint-*"))

    resumed = affinage(*DISTIL, "--out", "cut")
    assert "resum" in resumed.stderr
    affinage(*DISTIL, "--out", "whole")
    assert same_weights(place / "cut", place / "whole")
    assert not (place / "cut.partial").exists()


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """A folder on a file system of 300 kB: room for the tokens, not for a checkpoint."""
    folder = place / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(affinage: Affinage, small_disk: Path) -> None:
    done = affinage(*DISTIL, "--out", "small/out", code=2)
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: the disk is full; free some space and run the same command")
    assert not (small_disk / "out").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
def test_a_file_that_may_not_grow(affinage: Affinage, place: Path) -> None:
    done = affinage(*DISTIL, "--out", "out", code=2, file_size=20_000)
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert not (place / "out").exists()


def test_a_place_one_may_not_write_to(affinage: Affinage, place: Path) -> None:
    (place / "file").touch()
    places = ["file/out"]
    if Path("/proc/self").is_dir():
        places.append("/proc/out")
    if os.geteuid():
        (place / "locked").mkdir(mode=0o500)
        places.append("locked/out")
    for out in places:
        done = affinage(*DISTIL, "--out", out, code=2)
        assert done.stdout == ""
        assert f"error: output folder '{out}' cannot be made: " in done.stderr
