"""Which errors a person can cause, and what is said about each."""

import typer

from affinage.errors import AffinageError, MissingExtra
from affinage.training.writing import failures, is_full

_TRAIN = {"accelerate", "datasets", "huggingface_hub", "jinja2", "matplotlib", "pyarrow", "safetensors", "tensorboard"}
_TRAIN |= {"torch", "transformers"}
_FULL = "the disk is full; free some space and run the same command again: training resumes from its last checkpoint"


def foreseen() -> tuple[type[BaseException], ...]:
    """The kinds of exception among which `explain` finds those that a person can cause."""
    return (AffinageError, typer.TyperException, ModuleNotFoundError, *failures())


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
    if is_full(error):
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
