"""The command line as a person runs it: the road in processes of its own, Ctrl-C, a full disk, a place one may not
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

from affinage.cli.app import run
from affinage.report.report import Report
from tiny import save_tiny
from tiny_data import ON_TEXT, SHAPE, STEPS, same_weights, settings, write_corpus, write_task

Refused = Callable[..., str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "texts")
    write_task(tmp_path / "reviews", "sentiment")
    save_tiny(tmp_path, "camembert", "mlm").rename(tmp_path / "teacher")
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "affinage", *arguments]


def affinage(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process that must succeed, and let no other library's voice through."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    for noise in ("Warning", "it/s]", "LOAD REPORT", "Loading weights", "Some weights", "Traceback"):
        assert noise not in done.stderr + done.stdout
    return done


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_the_road() -> None:
    """Its parts in one process are in test_verbs.py and test_road.py."""
    made = affinage("pretrain", "texts", "--out", "made", *settings({**ON_TEXT, **SHAPE}))
    assert made.stdout.startswith("model")
    assert "pre-training  step 2/2" in made.stderr
    assert made.stderr.endswith("saved in made\n")

    distilled = affinage("distil", "made", "--corpus", "texts", "--out", "student", "--json", *settings(ON_TEXT))
    report = Report.from_json(distilled.stdout)
    assert [m.layers for m in report.models] == [2, 4]
    assert report.provenance.command.startswith("affinage distil made --corpus texts --out student --json --set ")
    assert "distillation  step 2/2" in distilled.stderr

    task = ("--task", "sentiment", "--data", "reviews")
    quiet = affinage("finetune", "student", *task, "--out", "tuned", "--json", "-q", *settings(STEPS))
    assert quiet.stderr == ""
    scores = Report.from_json(quiet.stdout).scores

    evaluated = affinage("evaluate", "tuned", *task[2:], "--json", "-q")
    assert evaluated.stderr == ""
    again = Report.from_json(evaluated.stdout).scores
    assert [s.value for s in again] == [s.value for s in scores if s.split == "test"]

    answer = affinage("predict", "tuned", "Une cave sombre.", "--json")
    assert json.loads(answer.stdout)["label"] in ("negative", "positive")
    assert answer.stderr == ""
    assert not list(Path.cwd().glob("*.partial"))


LONG = {**ON_TEXT, "training.max_steps": "60", "training.evaluations": "20", "training.logging_steps": "1"}
DISTIL = ("distil", "teacher", "--corpus", "texts", *settings(LONG))


def test_ctrl_c_and_the_same_command_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = subprocess.Popen(
        command(*DISTIL, "--out", "cut"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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
    for noise in ("Traceback", "Warning", "it/s]", "Loading weights"):
        assert noise not in err
    assert not (place / "cut").exists()
    assert list((place / "cut.partial" / "checkpoints").glob("checkpoint-*"))

    assert run([*DISTIL, "--out", "cut"]) == 0
    assert "from checkpoint-" in capsys.readouterr().err
    assert run([*DISTIL, "--out", "whole"]) == 0
    assert same_weights(place / "cut", place / "whole")
    assert not (place / "cut.partial").exists()


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command line that ends with one message and exit code 2; the message."""

    def check(*arguments: str) -> str:
        assert run(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("error: ") == 1
        assert "Traceback" not in err
        return err.splitlines()[-1]

    return check


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """A folder on a file system of 300 kB: room for the tokens, not for many checkpoints."""
    folder = place / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"nothing can be mounted here: {error}")
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(refused: Refused, small_disk: Path) -> None:
    message = refused(*DISTIL, "--out", "small/out")
    assert message.startswith("error: 'small/out.partial")
    assert "cannot be written: the disk is full" in message
    assert "; free some space and run the same command again" in message
    assert not (small_disk / "out").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on file sizes is tried on Linux")
@pytest.mark.parametrize("size", [3_000, 30_000])  # of the tokens, of the weights
def test_a_file_that_may_not_grow(
    refused: Refused, place: Path, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens or weights that cannot be written; what was written stays aside."""
    import resource

    monkeypatch.setenv("AFFINAGE_CACHE", str(tmp_path / "no tokens yet"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        message = refused(*DISTIL, "--out", "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in message
    assert not (place / "out").exists()


def test_a_place_one_may_not_write_to(refused: Refused, place: Path) -> None:
    (place / "file").touch()
    places = ["file/out"]
    if Path("/proc/self").is_dir():
        places.append("/proc/out")
    if os.geteuid():
        (place / "locked").mkdir(mode=0o500)
        places.append("locked/out")
    for out in places:
        assert f"error: output folder '{out}' cannot be made: " in refused(*DISTIL, "--out", out)
