"""Where a run works, and perhaps resumes: aside, in a folder that is renamed to `OUT` when it is whole."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from affinage.errors import InputError


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
        folder = cls(out, out.with_name(out.name + ".partial"), overwrite)
        text = json.dumps(identity, sort_keys=True, indent=1)
        noted, aside = folder.partial / "run.json", folder.partial / "run.tmp"
        try:
            # In the end the working folder is deleted: what somebody else keeps under its name must not be in it.
            if not noted.is_file() and any(p.is_file() and p != aside for p in folder.partial.rglob("*")):
                raise InputError(f"'{folder.partial}' is not a folder of affinage's; move it, or choose another --out")
            if noted.is_file() and noted.read_text(encoding="utf-8") != text:
                raise InputError(
                    f"'{folder.partial}' holds an unfinished run with {_difference(noted, identity)}; finish that one "
                    "with its own command, delete the folder, or choose another --out"
                )
            for path in (folder.checkpoints, folder.logs):
                path.mkdir(parents=True, exist_ok=True)
            if not noted.is_file():
                aside.write_text(text, encoding="utf-8")
                aside.replace(noted)
        except OSError as error:
            raise InputError(f"output folder '{out}' cannot be made: {error.strerror or error}") from None
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
        """The newest checkpoint that is whole: the Trainer writes `trainer_state.json` last."""
        whole = [p for p in self.checkpoints.glob("checkpoint-*") if _is_json(p / "trainer_state.json")]
        return max(whole, key=lambda p: int(p.name.rpartition("-")[2]), default=None)

    def finish(self, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a folder aside, make it durable, rename it to `out`, and drop the working folder."""
        aside = self.partial / "final"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        write(aside)
        if any(self.logs.iterdir()):
            shutil.copytree(self.logs, aside / "runs")
        readable = (self.partial / "run.json").stat().st_mode
        for path in aside.rglob("*"):
            if path.is_file():
                path.chmod(readable)  # safetensors writes for the owner alone
        _make_durable(aside)
        if self.overwrite and self.out.exists():
            old = self.partial / "replaced"
            shutil.rmtree(old, ignore_errors=True)
            self.out.rename(old)
        aside.rename(self.out)
        shutil.rmtree(self.partial)
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
    aside, old = work / "final", work / "replaced"
    try:
        work.mkdir(parents=True)
        aside.mkdir()
    except OSError as error:
        raise InputError(f"output folder '{out}' cannot be made: {error.strerror or error}") from None
    try:
        yield aside
        _make_durable(aside)
        if overwrite and out.exists():
            out.rename(old)
        aside.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(work, ignore_errors=True)


def refuse_existing(out: Path | str, *, overwrite: bool) -> None:
    """Asked before the first file is read. Raises: InputError where `out` exists, or cannot be a folder of its own."""
    out = Path(out)
    if out.name in {"", ".."}:
        raise InputError(f"output '{out}' names no folder of its own; choose another --out")
    try:
        if out.is_file():
            raise InputError(f"output '{out}' is a file; --out names a folder")
        if out.exists() and not overwrite:
            raise InputError(f"output folder '{out}' exists; choose another --out, or replace it with --overwrite")
    except OSError as error:
        raise InputError(f"output folder '{out}' cannot be made: {error.strerror or error}") from None


def _make_durable(folder: Path) -> None:
    """Let what was written reach the disk before a name says that it is whole."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _difference(noted: Path, identity: dict[str, Any]) -> str:
    """In words, which entries of the unfinished run differ."""
    try:
        before = json.loads(noted.read_text(encoding="utf-8"))
    except ValueError:
        return "other settings"
    keys = [key for key in sorted({*before, *identity}) if before.get(key) != json.loads(json.dumps(identity.get(key)))]
    return "another " + ", ".join(keys) if keys else "other settings"
