"""Which errors a person can cause, and what is said about each."""

import errno
import sys
from typing import Any

import typer

from affinage.errors import AffinageError, MissingExtra

_TRAIN = {"accelerate", "datasets", "huggingface_hub", "jinja2", "matplotlib", "pyarrow", "safetensors", "tensorboard"}
_TRAIN |= {"torch", "transformers"}
_FULL = "the disk is full; free some space and run the same command again: training resumes from its last checkpoint"


def foreseen() -> tuple[type[BaseException], ...]:
    """The kinds of exception among which `explain` finds those that a person can cause.

    Asked for when one is on its way, because safetensors, which has one of its own, is only imported by then if at all.
    """
    safetensors: Any = sys.modules.get("safetensors")
    late = () if safetensors is None else (safetensors.SafetensorError,)
    return (AffinageError, typer.TyperException, ModuleNotFoundError, OSError, RuntimeError, *late)


def explain(error: BaseException) -> tuple[str, int] | None:
    """The message and the exit code of an error that a person can cause; None for a bug."""
    match error:
        case AffinageError():
            return str(error), error.exit_code
        case typer.TyperException():
            return _usage(error), 2
        case ModuleNotFoundError():
            module = (error.name or "").partition(".")[0]
            return (str(MissingExtra(module, "train")), 2) if module in _TRAIN else None
        case typer.Abort():
            return "interrupted", 130
    if _is_full(error):
        return _FULL, 2
    if type(error).__name__ == "SafetensorError" and "I/O error: " in str(error):
        return f"weights cannot be read or written: {str(error).rpartition('I/O error: ')[2]}", 2
    if not isinstance(error, OSError):
        return None
    where = f"'{error.filename}': " if error.filename else ""
    if isinstance(error, PermissionError):
        return f"{where}permission denied; choose a place you may read and write", 2
    return f"{where}{error.strerror or error}", 2


def _usage(error: typer.TyperException) -> str:
    """A wrong option or verb, with the page to read."""
    context = getattr(error, "ctx", None)
    hint = f"\nsee: {context.command_path} --help" if context is not None else ""
    return error.format_message().rstrip(".") + hint


def _is_full(error: BaseException) -> bool:
    """Whether a write failed for want of space: safetensors and torch.save say it in words of their own."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "No space left on device" in str(error) or "inline_container" in str(error)
