"""The errors a person can meet: each says where, what came, what is allowed and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class AffinageError(Exception):
    """Base of every error that affinage raises on purpose; the command line prints it and exits with `exit_code`."""

    exit_code: int = 2


class InputError(AffinageError):
    """What the user gave cannot be used: a path, a name, a value, a file, a model."""


class LossMisfit(InputError):
    """A recipe's losses cannot compare this student with these teachers; another recipe's may."""


class DataError(InputError):
    """A row of a data file cannot be used. The message starts with `file:line`."""


class MissingExtra(InputError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"this needs the package '{module}'; install it with: pip install 'affinage[{extra}]'")


class WriteError(AffinageError):
    """What a run makes cannot be written: a full disk, a read-only folder. What it finished before is kept."""


class CheckFailed(AffinageError):
    """A check that the user asked for did not pass (exit code 1)."""

    exit_code = 1


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One sentence for an unknown name, with the nearest known ones.

    >>> unknown("task", "sentimant", ["sentiment", "ner"])
    "unknown task 'sentimant'. Did you mean 'sentiment'? Known: ner, sentiment"
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"unknown {kind} '{name}'.{hint} Known: {', '.join(names) or 'none'}"


def legible(value: object, limit: int = 80) -> str:
    """What came, as it may stand in a message: short, on one line, with nothing that a terminal obeys."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value)[:limit])
