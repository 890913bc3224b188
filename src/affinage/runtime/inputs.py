"""Which inputs a model can be given, and what is said about the others."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from affinage.errors import InputError

MAX_CHARACTERS = 1_000_000
"""Characters of one text: a long novel. More is a file given by mistake."""
MAX_LABELS = 256
"""Candidate labels of zero-shot classification: each costs one pass over the text."""


def as_list(inputs: Any) -> list[Any]:
    """One input or several as a list. Raises: InputError where there is none."""
    if isinstance(inputs, str | Mapping | tuple):
        return [inputs]
    if not isinstance(inputs, Sequence) or isinstance(inputs, bytes):
        raise InputError(f"inputs: expected a text or a list of texts, got {type(inputs).__name__}")
    if not inputs:
        raise InputError("inputs: the list is empty; give at least one text")
    return list(inputs)


def check_text(text: Any, where: str) -> str:
    """The text. Raises: InputError where it is not a string, is blank, too long, or not valid Unicode."""
    if isinstance(text, Mapping) and text.keys() == {"text"}:
        text = text["text"]
    if isinstance(text, Mapping):
        raise InputError(
            f'{where}: this model reads one text at a time, as it is or as {{"text": …}}; got the keys '
            f"{', '.join(map(str, text)) or 'of nothing'}"
        )
    if not isinstance(text, str):
        raise InputError(f"{where}: expected a text, got {type(text).__name__} ({text!r:.60})")
    if not text.strip():
        raise InputError(f"{where}: the text is empty")
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"{where}: {len(text):,} characters; at most {MAX_CHARACTERS:,} are allowed")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: not valid Unicode at character {error.start} (a lone surrogate)") from None
    return text


def check_pair(value: Any, where: str, *, keys: tuple[str, str]) -> tuple[str, str]:
    """Two texts, from a pair or from a mapping with these keys. Raises: InputError where they are not there."""
    if isinstance(value, Mapping):
        wrong = sorted(set(map(str, value)) ^ set(keys))
        if wrong:
            raise InputError(f"{where}: expected the keys {keys[0]} and {keys[1]}, got {', '.join(map(str, value))}")
        value = (value[keys[0]], value[keys[1]])
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise InputError(f"{where}: expected a pair ({keys[0]}, {keys[1]}), got {value!r:.60}")
    return check_text(value[0], f"{where}, {keys[0]}"), check_text(value[1], f"{where}, {keys[1]}")


def check_labels(labels: Any) -> list[str]:
    """Candidate labels. Raises: InputError where they are no list of different, non-empty strings."""
    if isinstance(labels, str) or not isinstance(labels, Sequence) or not labels:
        raise InputError(f"labels: expected a list of labels, got {labels!r:.60}")
    checked = [check_text(label, f"label {i + 1}").strip() for i, label in enumerate(labels)]
    repeated = sorted({label for label in checked if checked.count(label) > 1})
    if repeated:
        raise InputError(f"labels: given twice: {', '.join(repeated)}")
    if len(checked) > MAX_LABELS:
        raise InputError(f"labels: {len(checked)}; at most {MAX_LABELS} are allowed")
    return checked


def check_threads(value: Any) -> int:
    """A number of threads. Raises: InputError for one that no machine is helped by, and that some die of."""
    most = max(64, 4 * (os.cpu_count() or 1))
    if check_count(value, "threads") > most:
        raise InputError(f"threads: {value}; at most {most} are allowed on this machine")
    return int(value)


def check_count(value: Any, where: str) -> int:
    """A whole number of at least 1. Raises: InputError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{where}: expected a whole number of at least 1, got {value!r:.60}")
    return value
