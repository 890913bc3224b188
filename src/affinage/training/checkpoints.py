"""Which checkpoints are whole: a note of their files' checksums, written last, says so; older ones go only after it."""

import json
import logging
import re
import shutil
from pathlib import Path

from affinage.data.checksums import checksums, damage, make_durable, read_note, write_durably
from affinage.errors import InputError

log = logging.getLogger(__name__)

NOTE = "checksums.json"
KEPT = 2
"""newest checkpoints that are kept, so that a damaged one costs little; and the best one that either of them names"""


def seal(checkpoint: Path) -> None:
    """Note the checksums of a checkpoint that all processes have written, once it is safely on the disk."""
    (checkpoint / NOTE).unlink(missing_ok=True)
    make_durable(checkpoint)
    write_durably(checkpoint / NOTE, json.dumps(checksums(checkpoint), indent=1))


def rotate(folder: Path) -> None:
    """Delete what is older than the `KEPT` newest whole checkpoints in `folder`, their best ones aside."""
    newest = [path for path in _by_step(folder) if (path / NOTE).is_file()][-KEPT:]
    wanted = {*newest, *map(best_of, newest)}
    for checkpoint in _by_step(folder):
        if checkpoint not in wanted:
            shutil.rmtree(checkpoint, ignore_errors=True)


def take_up(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`; what is newer, or was not finished, is deleted. None: there is none.

    A damaged one is named in a warning. Raises: InputError where there are damaged ones, and no whole one.
    """
    found = _by_step(folder)
    whole = None
    faults = []
    for path in reversed(found):
        if not (path / NOTE).is_file():
            log.info("'%s' was not finished: it is not read", path)
        elif (fault := _damage(path)) is not None:
            faults.append(fault)
        else:
            whole = path
            break
    if faults and whole is None:
        raise InputError(
            f"{faults[0]}, and no other checkpoint is whole; delete the folder '{folder}' and run the same command "
            "again to train anew"
        )
    for fault in faults:
        log.warning("%s; the run goes on from %s", fault, whole and whole.name)
    for path in found:
        if not (path / NOTE).is_file() or (whole is not None and _step(path) > _step(whole)):
            shutil.rmtree(path, ignore_errors=True)
    return whole


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint or with the best one that it names; None where both are whole."""
    fault = damage(checkpoint, read_note(checkpoint / NOTE))
    if fault is not None:
        return fault
    best = best_of(checkpoint)
    return None if best is None or best == checkpoint else damage(best, read_note(best / NOTE))


def best_of(checkpoint: Path) -> Path | None:
    """The checkpoint that had the best score when this one was written, beside it wherever the run lies now."""
    name = (read_note(checkpoint / "trainer_state.json") or {}).get("best_model_checkpoint")
    return checkpoint.with_name(Path(name).name) if name else None


def _by_step(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted((p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)), key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
