"""A write that fails for want of room or of permission: one message with where, what, why and what to do."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from affinage.errors import WriteError

_AGAIN = "and run the same command again: it goes on from what is whole"
_CURES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.EIO: "check the disk",
}


@contextmanager
def writing(what: str, folder: Path) -> Iterator[None]:
    """Where the block fails to write `what` into `folder`, the error says so. Raises: WriteError."""
    try:
        yield
    except failures() as error:
        said = _reason_and_cure(error)
        if said is None:
            raise
        reason, cure = said
        raise WriteError(f"'{folder}': {what} cannot be written: {reason}; {cure} {_AGAIN}") from error


def is_full(error: BaseException) -> bool:
    """Whether a write failed for want of space: safetensors, torch.save and shutil say it in words of their own."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error) or _is_of_torch_save(error)


def _is_of_torch_save(error: BaseException) -> bool:
    """Its error does not say why a write failed; that of torch.load comes from the same file."""
    return "inline_container" in str(error) and "Reader" not in str(error)


def failures() -> tuple[type[BaseException], ...]:
    """What a write can raise: torch.save a RuntimeError, safetensors an error of its own.

    Asked for when one is on its way: safetensors is imported by then, if at all.
    """
    safetensors: Any = sys.modules.get("safetensors")
    return (OSError, RuntimeError, *(() if safetensors is None else (safetensors.SafetensorError,)))


def _reason_and_cure(error: BaseException) -> tuple[str, str] | None:
    """None where it is no write that failed for a reason one can cure."""
    if is_full(error):
        unsure = ", or files may not grow so large" if _is_of_torch_save(error) else ""
        return f"the disk is full{unsure}", _CURES[errno.ENOSPC]
    if isinstance(error, OSError):
        cure = _CURES.get(error.errno or 0)
        return None if cure is None else (error.strerror or str(error), cure)
    _, found, reason = str(error).rpartition("I/O error: ")  # safetensors: "I/O error: File too large (os error 27)"
    number = reason.rpartition("os error ")[2].rstrip(")")
    return (reason, _CURES.get(int(number), "mend that")) if found and number.isdigit() else None
