"""The fields of a row, checked: each function gives the value in its one form or says what is wrong with it."""

import re
from collections.abc import Iterable
from reprlib import Repr
from typing import Any

from affinage.data.lines import undecodable
from affinage.data.readers import Row
from affinage.data.task import Task

MAX_TEXT = 2**20
"""Characters of a text, and words of a sentence: no model reads a tenth of that."""
MAX_LABEL = 200
"""Characters."""
MAX_LABELS = 1000
"""Of one text."""
MAX_NUMBER = 1e9
"""Of a regression: its square must be exact enough in float32."""

BRIEF = Repr()  # what came may be long, and lists within lists
BRIEF.maxlevel, BRIEF.maxstring = 2, 60


class BadRowError(Exception):
    """What is wrong with one row, in words."""


def text_of(row: Row, field: str) -> str:
    """A text that is not blank."""
    value = row.values[field]
    if not isinstance(value, str):
        raise BadRowError(f"'{field}' must be text, got {got(value)}")
    if not value.strip():
        raise BadRowError(f"'{field}' is blank")
    if len(value) > MAX_TEXT:
        raise BadRowError(f"'{field}' has {len(value):,} characters, more than {MAX_TEXT:,}; cut it into several rows")
    _check_characters(value, field)
    return value


def label_of(value: Any, task: Task) -> str:
    """The label as a name; a number (or its digits) is looked up in the task's label names."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    names = task.label_names
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise BadRowError(f"'label' must be a word or a number, got {got(value)}")
    text = str(value).strip()
    if not text:
        raise BadRowError("'label' is blank")
    if len(text) > MAX_LABEL:
        raise BadRowError(f"'label' has {len(text):,} characters, more than {MAX_LABEL}: is it another column?")
    if names and re.fullmatch(r"-?[0-9]{1,9}(\.0+)?", text):  # 1.0: a column that had gaps, as pandas writes it
        number = int(float(text))
        if not 0 <= number < len(names):
            known = ", ".join(f"{i} = {name}" for i, name in enumerate(names))
            raise BadRowError(f"label {text} is unknown to task '{task.name}' ({known}); for other labels, write words")
        return names[number]
    _check_characters(text, "label")
    return text


def number_of(value: Any) -> float:
    """A finite number, or text that says one."""
    problem = f"'label' must be a number, got {got(value)}"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadRowError(problem)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise BadRowError(problem) from None
    if not -MAX_NUMBER <= number <= MAX_NUMBER:  # so for NaN
        raise BadRowError(f"'label' must be a number between -{MAX_NUMBER:g} and {MAX_NUMBER:g}, got {got(value)}")
    return number


def strings_of(row: Row, field: str) -> tuple[str, ...]:
    """A list of texts."""
    value = row.values[field]
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        wrong = next((v for v in value if not isinstance(v, str)), None) if isinstance(value, list) else value
        raise BadRowError(f"'{field}' must be a list of strings, got {got(wrong)}{' in it' * isinstance(value, list)}")
    if len(value) + sum(map(len, value)) > MAX_TEXT:
        raise BadRowError(f"'{field}' is longer than {MAX_TEXT:,} characters; cut the sentence into several rows")
    for text in value:
        _check_characters(text, field)
    return tuple(value)


def answers_of(value: Any) -> Iterable[tuple[str, int]]:
    """Answers in either SQuAD form: {"text": […], "answer_start": […]} or [{"text": …, "answer_start": …}, …]."""
    form = '{"text": ["…"], "answer_start": [0]} or [{"text": "…", "answer_start": 0}]'
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise BadRowError(f"'answers' must be {form}, with as many texts as starts; got {got(value)}")
        pairs = list(zip(texts, starts, strict=True))
    elif isinstance(value, list) and all(isinstance(answer, dict) for answer in value):
        pairs = [(answer.get("text"), answer.get("answer_start")) for answer in value]
    else:
        raise BadRowError(f"'answers' must be {form}; got {got(value)}")
    for text, start in pairs:
        if not isinstance(text, str) or not text.strip():
            raise BadRowError(
                f"the text of an answer must be a text, got {got(text)}; for no answer give no text at all"
            )
        if isinstance(start, bool) or not isinstance(start, int):
            raise BadRowError(f"'answer_start' must be the index of a character, got {got(start)}")
        yield text, start


def _check_characters(text: str, field: str) -> None:
    bad = undecodable(text)
    if bad is not None:
        raise BadRowError(f"'{field}' holds half a surrogate pair at character {bad + 1}; write the whole character")


def got(value: Any) -> str:
    """What came, for a message."""
    return "nothing" if value is None else f"{type(value).__name__} {BRIEF.repr(value):.60}"
