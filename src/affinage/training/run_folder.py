"""Where a run works, and perhaps resumes: aside, in a folder that is renamed to `OUT` when it is whole."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from affinage.data.checksums import make_durable, sync_folder, write_durably
from affinage.errors import InputError
from affinage.training.checkpoints import take_up
from affinage.training.writing import writing

_FINAL = "final"
"""The folder, in the working folder, that becomes the output."""
_WHOLE = "final.whole"
"""Noted once it is: where this is there and the folder is not, the run had come to its end."""


_held: dict[Path, int] = {}
"""working folder -> the descriptor by which this process holds it, until it ends"""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. What an interrupted run left in it is taken up by the same command."""

    out: Path
    partial: Path
    overwrite: bool

    @classmethod
    def open(cls, out: Path | str, *, identity: dict[str, Any], overwrite: bool = False) -> Self:
        """Make or take up the working folder of the run that `identity` (names, hashes) describes.

        Raises: InputError where `out` exists, cannot be written beside, or the work of another run lies there.
        """
        refuse_existing(out, overwrite=overwrite)
        out = Path(out)
        folder = cls(out, _partial(out), overwrite)
        text = json.dumps(identity, sort_keys=True, indent=1)
        noted = folder.partial / "run.json"
        try:
            _mend(out)
            refuse_existing(out, overwrite=overwrite)
            # In the end the working folder is deleted: what somebody else keeps under its name must not be in it.
            aside = noted.with_suffix(".tmp")  # was being written when a run was killed
            if not noted.is_file() and any(p.is_file() and p != aside for p in folder.partial.rglob("*")):
                raise InputError(f"'{folder.partial}' is not a folder of affinage's; move it, or choose another --out")
            if noted.is_file() and noted.read_text(encoding="utf-8") != text:
                raise InputError(
                    f"'{folder.partial}' holds an unfinished run with {_difference(noted, identity)}; finish that one "
                    "with its own command, delete the folder, or choose another --out"
                )
            for path in (folder.checkpoints, folder.logs):
                path.mkdir(parents=True, exist_ok=True)
            _hold(folder.partial)
            if not noted.is_file():
                write_durably(noted, text)
        except OSError as error:
            raise _unmade(out, error) from None
        return folder

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """What turns out unusable before training leaves nothing behind: the corrected call would be another run."""
        try:
            yield
        except InputError:
            if not any(self.checkpoints.iterdir()):
                shutil.rmtree(self.partial, ignore_errors=True)
            raise

    @property
    def checkpoints(self) -> Path:
        """Where the Trainer writes checkpoints."""
        return self.partial / "checkpoints"

    @property
    def logs(self) -> Path:
        """Where TensorBoard's event files are written."""
        return self.partial / "runs"

    def last_checkpoint(self) -> Path | None:
        """The newest whole checkpoint, the same one for every process; None where training begins anew.

        What is newer, or was not finished, is deleted. A damaged one is passed over with a warning that names the file.

        Raises: InputError where only damaged ones are left.
        """
        from affinage.training.processes import agreed  # which imports torch; verbs that do not train come here too

        return agreed(lambda: take_up(self.checkpoints))

    def finish(self, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a folder aside, make it durable, rename it to `out`, and drop the working folder.

        Raises: WriteError where there is no room for it; the same run can be finished later.
        """
        aside = self.partial / _FINAL
        with writing("the finished folder", aside):
            (self.partial / _WHOLE).unlink(missing_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            write(aside)
            if any(self.logs.iterdir()):
                shutil.copytree(self.logs, aside / "runs")
            readable = (self.partial / "run.json").stat().st_mode
            for path in aside.rglob("*"):
                if path.is_file():
                    path.chmod(readable)  # safetensors writes for the owner alone
            make_durable(aside)
            write_durably(self.partial / _WHOLE, "")
            _put_in_place(aside, self.out, old=_replaced(self.partial), overwrite=self.overwrite)
        _clear(self.partial)
        return self.out


@contextmanager
def written_aside(out: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """For a run that does not resume: a folder to fill, which is `out` once the block is through.

    Whatever ends the block before leaves nothing behind, and what stood at `out` in its place.

    Raises: InputError where `out` exists, or cannot be written beside.
    """
    refuse_existing(out, overwrite=overwrite)
    out = Path(out)
    work = out.with_name(f"{out.name}.{os.getpid()}.partial")
    aside = work / _FINAL
    try:
        work.mkdir(parents=True)
        aside.mkdir()
    except OSError as error:
        raise _unmade(out, error) from None
    try:
        yield aside
        make_durable(aside)
        _put_in_place(aside, out, old=_replaced(work), overwrite=overwrite)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def refuse_existing(out: Path | str, *, overwrite: bool) -> None:
    """Asked before the first file is read. Raises: InputError where `out` exists, or cannot be a folder of its own.

    Where the run that made `out` was killed while it cleared up, that is done now.
    """
    out = Path(out)
    if out.name in {"", ".."}:
        raise InputError(f"output '{out}' names no folder of its own; choose another --out")
    try:
        if out.is_file():
            raise InputError(f"output '{out}' is a file; --out names a folder")
        if out.exists() and not overwrite:
            _mend(out)
            raise InputError(f"output folder '{out}' exists; choose another --out, or replace it with --overwrite")
    except OSError as error:
        raise _unmade(out, error) from None


def _unmade(out: Path, error: OSError) -> InputError:
    """What is said of an output folder that the system refuses."""
    reason = error.strerror or error
    return InputError(f"output folder '{out}' cannot be made: {reason}; choose another --out, or mend that")


def _partial(out: Path) -> Path:
    """Where a run that makes `out` works."""
    return out.with_name(f"{out.name}.partial")


def _replaced(work: Path) -> Path:
    """Where what stood at the output waits until the new one is in its place."""
    return work / "replaced"


def _put_in_place(aside: Path, out: Path, *, old: Path, overwrite: bool) -> None:
    """Rename `aside` to `out`. What stands there goes to `old`, and back where that fails."""
    try:
        if overwrite and out.exists():
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        aside.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
    sync_folder(out.parent)


def _mend(out: Path) -> None:
    """What a run that was killed in `finish` still had to do: put back what it was replacing, or clear up."""
    partial = _partial(out)
    if _replaced(partial).exists() and not out.exists():
        _replaced(partial).rename(out)
    elif (partial / _WHOLE).is_file() and not (partial / _FINAL).exists():
        _clear(partial)
    elif out.exists() and partial.is_dir() and not any(partial.iterdir()):
        partial.rmdir()


def _clear(partial: Path) -> None:
    """Delete the working folder; the proof that the run had come to its end goes last."""
    for path in partial.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _WHOLE:
            path.unlink(missing_ok=True)
    shutil.rmtree(partial, ignore_errors=True)


def _difference(noted: Path, identity: dict[str, Any]) -> str:
    """In words, which entries of the unfinished run differ."""
    try:
        before = json.loads(noted.read_text(encoding="utf-8"))
    except ValueError:
        return "other settings"
    keys = [key for key in sorted({*before, *identity}) if before.get(key) != json.loads(json.dumps(identity.get(key)))]
    return "another " + ", ".join(keys) if keys else "other settings"


def _hold(partial: Path) -> None:
    """Keep other processes out of the folder while this one lives; those of one launcher count as one.

    Raises: InputError where another is in it. Where a file system or the platform has no locks, nobody is kept out.
    """
    if fcntl is None or os.environ.get("RANK", "0") != "0":
        return
    key, inode = partial.resolve(), partial.stat().st_ino
    if key in _held and os.fstat(_held[key]).st_ino == inode:
        return
    if key in _held:  # of a folder that is gone
        os.close(_held.pop(key))
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(
            f"'{partial}': another process is at this run; wait until it has ended, or choose another --out"
        ) from None
    except OSError:
        os.close(descriptor)
        return
    _held[key] = descriptor
