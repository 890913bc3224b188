"""The two streams: results on stdout, progress and messages on stderr."""

import logging
import os
import sys
import warnings
from typing import Any

from rich.console import Console
from rich.table import Table

_NOISY = ("accelerate", "datasets", "huggingface_hub", "tensorboard", "torch", "transformers")


def set_up(*, quiet: bool) -> None:
    """Send affinage's log to stderr, and keep other libraries' chatter off it; errors still show.

    Variables that are set already win: TRANSFORMERS_VERBOSITY=info brings the chatter back.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if not sys.warnoptions:
        for name in _NOISY:
            warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
    log = logging.getLogger("affinage")
    for handler in list(log.handlers):
        log.removeHandler(handler)
    log.addHandler(_Stderr())
    log.setLevel(logging.WARNING if quiet else logging.INFO)


def say(message: str) -> None:
    """One message on stderr, as it is."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201


def is_first_process() -> bool:
    """Whether this process speaks: under `accelerate launch` only the first one does."""
    return os.environ.get("RANK", "0") == "0"


def write(text: str) -> None:
    """A result on stdout, as it is."""
    if is_first_process():
        sys.stdout.write(text if text.endswith("\n") else text + "\n")


def write_table(columns: tuple[str, ...], rows: list[tuple[Any, ...]], *, title: str | None = None) -> None:
    """A result on stdout for people; columns named with a leading `>` are aligned to the right."""
    if not is_first_process():
        return
    table = Table(
        title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold", title_style="bold"
    )
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold", no_wrap=right)
    for row in rows:
        table.add_row(*map(str, row))
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=160)
    console.print(table)


class _Stderr(logging.Handler):
    """Writes to what `sys.stderr` is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        if is_first_process() or record.levelno >= logging.WARNING:
            level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
            say(level + record.getMessage())
