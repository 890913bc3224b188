"""A disk without room, a folder that became read-only: one message, what was whole stays, and the run can go on."""

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from affinage.errors import InputError, WriteError
from affinage.training.checkpoints import take_up
from affinage.training.run_folder import RunFolder
from affinage.workflows import corpus_stage
from affinage.workflows.distil import distil
from tiny import save_tiny
from tiny_data import ON_TEXT, same_weights, write_corpus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="room is limited here as Linux does it")

AGAIN = "and run the same command again: it goes on from what is whole"
# A random teacher is worse than chance: a guard of the recipe says so.
SETTINGS = {**ON_TEXT, "training.max_steps": "6", "training.evaluations": "3", "guards.bad_teacher": "warn"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a corpus, and the student that nothing stopped."""
    folder = tmp_path_factory.mktemp("room")
    save_tiny(folder)
    write_corpus(folder / "texts")
    run(folder, folder / "whole")
    return folder


def run(place: Path, out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFFINAGE_CACHE", str(out.with_name("cache")))  # every run tokenises for itself
        distil(place / "camembert-mlm", corpus=[place / "texts"], out=out, overrides=SETTINGS, quiet=True)


def ends_well(place: Path, out: Path) -> None:
    """Run again, the same command comes to the end it would have come to."""
    run(place, out)
    assert same_weights(out, place / "whole")
    assert {path.name for path in out.iterdir()} == {path.name for path in (place / "whole").iterdir()}
    assert not out.with_name(f"{out.name}.partial").exists()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Real writes fail once a file has `size` bytes (EFBIG: Python ignores the signal that would come first).

    A limit of this process: no other one, and no user, is spared it, as root is by file modes.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class At(TrainerCallback):
    def __init__(self, step: int, act: Callable[[], object]) -> None:
        self.step, self.act = step, act

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.act()


@contextmanager
def at_step(step: int, act: Callable[[], object]) -> Iterator[None]:
    """Let something happen at the end of a step, before its checkpoint is written."""

    class Trainer(corpus_stage.SumTrainer):
        def __init__(self, *args: Any, callbacks: list[Any], **kwargs: Any) -> None:
            super().__init__(*args, callbacks=[*callbacks, At(step, act)], **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_stage, "SumTrainer", Trainer)
        yield


def test_no_room_for_the_tokens(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with files_of_at_most(3_000), pytest.raises(WriteError) as caught:
        run(place, out)
    assert str(caught.value).startswith(f"'{tmp_path}/cache/tokens/")
    assert str(caught.value).endswith(
        f"': the tokenised corpus cannot be written: File too large; raise the limit on file sizes (ulimit -f) {AGAIN}"
    )
    ends_well(place, out)


def test_no_room_for_the_second_checkpoint(place: Path, tmp_path: Path) -> None:
    """The limit comes in the middle of training; the first checkpoint is whole then and stays so."""
    out = tmp_path / "out"
    with ExitStack() as limits:
        small = partial(limits.enter_context, files_of_at_most(20_000))
        with at_step(3, small), pytest.raises(WriteError) as caught:
            run(place, out)
    assert str(caught.value) == (
        f"'{tmp_path}/out.partial': the run's files cannot be written: File too large (os error 27); raise the limit "
        f"on file sizes (ulimit -f) {AGAIN}"
    )
    assert (out.with_name("out.partial") / "checkpoints" / "checkpoint-4").is_dir()
    assert take_up(out.with_name("out.partial") / "checkpoints").name == "checkpoint-2"
    ends_well(place, out)


def test_no_room_for_the_finished_folder(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"

    def finish(folder: RunFolder, write: Callable[[Path], None], real: Any = RunFolder.finish) -> Path:
        with files_of_at_most(20_000):
            return real(folder, write)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish", finish)
        with pytest.raises(WriteError, match=r"final': the finished folder cannot be written: File too large .*again"):
            run(place, out)
    assert not out.exists()
    assert take_up(out.with_name("out.partial") / "checkpoints").name == "checkpoint-6"
    with at_step(7, lambda: pytest.fail("there was nothing left to train")):
        ends_well(place, out)


def test_a_folder_that_becomes_read_only(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    checkpoints = out.with_name("out.partial") / "checkpoints"
    with read_only(checkpoints) as lock, at_step(3, lock), pytest.raises(WriteError) as caught:
        run(place, out)
    assert str(caught.value) == (
        f"'{checkpoints.parent}': the run's files cannot be written: Read-only file system; make it writable {AGAIN}"
    )
    assert take_up(checkpoints).name == "checkpoint-2"
    ends_well(place, out)


def test_a_disk_that_is_full_until_there_is_room_again(place: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)):
        ballast = disk / "ballast"
        with at_step(3, lambda: fill(ballast, leaving=30_000)), pytest.raises(WriteError) as caught:
            run(place, disk / "out")
        where = f"'{disk}/out.partial': the run's files cannot be written: the disk is full"
        assert str(caught.value).startswith(where)
        assert str(caught.value).endswith(f"; free some space {AGAIN}")
        with pytest.raises((InputError, WriteError), match=r"the disk is full|No space left"):  # nobody made room
            run(place, disk / "out")
        ballast.unlink()
        assert take_up(disk / "out.partial" / "checkpoints").name == "checkpoint-2"
        ends_well(place, disk / "out")


def fill(path: Path, *, leaving: int) -> None:
    free = shutil.disk_usage(path.parent).free
    path.write_bytes(b"\0" * max(0, free - leaving))


@contextmanager
def mounted(*arguments: str) -> Iterator[None]:
    """Skips where nothing may be mounted."""
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"nothing can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", arguments[-1]], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[Callable[[], None]]:
    """What makes `folder` read-only until the end. Root may write whatever the file modes say, but not there."""
    with ExitStack() as mounts:

        def lock() -> None:
            mounts.enter_context(mounted("--bind", str(folder), str(folder)))
            subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)

        yield lock
