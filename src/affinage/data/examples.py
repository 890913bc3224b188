"""What an example of each kind of task is, and how rows become examples that are sure to be well formed."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeAlias

from affinage.data.lines import undecodable
from affinage.data.readers import Row, read_rows
from affinage.data.task import Kind, Task
from affinage.errors import DataError, InputError, unknown


@dataclass(frozen=True)
class TextExample:
    """One text and its class."""

    text: str
    label: str
    where: str


@dataclass(frozen=True)
class PairExample:
    """Two texts (premise and hypothesis) and their class."""

    first: str
    second: str
    label: str
    where: str


@dataclass(frozen=True)
class TokenExample:
    """The words of a sentence and a BIO tag for each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    where: str


@dataclass(frozen=True)
class SpanExample:
    """A question, its context, and the answers: (text, index of its first character in the context)."""

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]
    """every accepted answer; empty where the context holds none (SQuAD 2)"""
    where: str


Example: TypeAlias = TextExample | PairExample | TokenExample | SpanExample

MAX_PROBLEMS = 10
"""Bad rows named in one error."""
MAX_ROWS = 5_000_000
"""Of a part: all of them are kept in memory."""
MAX_TEXT = 2**20
"""Characters of a text, and words of a sentence: no model reads a tenth of that."""
MAX_LABEL = 200
"""Characters."""

_BRIEF = Repr()  # what came may be long, and lists within lists
_BRIEF.maxlevel, _BRIEF.maxstring = 2, 60
_OPTIONAL = {"id"}
_TAG = re.compile(r"O|[BI]-\S+")


def read_examples(
    task: Task, source: str | Path, *, columns: Mapping[str, str] | None = None, limit: int | None = None
) -> list[Example]:
    """Every example of `source` (see `read_rows`), at most the first `limit`.

    `columns`: field -> column where the data's names differ from the task's.

    Raises: InputError for a field the task does not have; DataError naming up to `MAX_PROBLEMS` bad rows.
    """
    chosen = resolve_columns(task, columns)
    make = _MAKERS[task.kind]
    examples: list[Example] = []
    problems: list[str] = []
    for row in islice(read_rows(source, columns=chosen, optional=_OPTIONAL), limit):
        if len(examples) == MAX_ROWS:
            raise DataError(f"{row.where}: more than {MAX_ROWS:,} rows up to here; give a part of them")
        try:
            examples.append(make(row, task))
        except _BadRowError as problem:
            problems.append(f"{row.where}: {problem}")
            if len(problems) == MAX_PROBLEMS:
                problems.append(f"… reading stopped after {MAX_PROBLEMS} bad rows")
                break
    if problems:
        raise DataError("\n".join(problems))
    return examples


def resolve_columns(task: Task, columns: Mapping[str, str] | None = None) -> dict[str, str]:
    """The task's columns with the user's in their place. Raises: InputError for a field the task does not have."""
    for field, column in (columns or {}).items():
        if field not in task.columns:
            first = next(iter(task.columns))
            problem = unknown(f"field of task '{task.name}'", field, task.columns)
            raise InputError(
                f"--column {field}={column}: {problem}. The form is field=column of your data, for example "
                f"--column {first}=my_{first}"
            )
    return {**task.columns, **(columns or {})}


def labels_of(task: Task, examples: Sequence[Example]) -> tuple[str, ...]:
    """Names of the labels, in the order a model numbers them.

    The task's own names where the data uses no other; else those of the data, sorted. For tags: O, then B- and I- of
    every type, sorted by type. Empty for spans.
    """
    if task.kind == "span":
        return ()
    if task.kind == "token":
        types = sorted({tag[2:] for e in examples if isinstance(e, TokenExample) for tag in e.tags if tag != "O"})
        return ("O", *(f"{prefix}-{name}" for name in types for prefix in "BI"))
    found = {e.label for e in examples if isinstance(e, TextExample | PairExample)}
    if task.label_names and found <= set(task.label_names):
        return task.label_names
    return tuple(sorted(found))


class _BadRowError(Exception):
    """What is wrong with one row, in words."""


def _text_example(row: Row, task: Task) -> TextExample:
    return TextExample(_text(row, "text"), _label(row, task), row.where)


def _pair_example(row: Row, task: Task) -> PairExample:
    return PairExample(_text(row, "premise"), _text(row, "hypothesis"), _label(row, task), row.where)


def _token_example(row: Row, task: Task) -> TokenExample:
    words, tags = _strings(row, "tokens"), _strings(row, "tags")
    if len(words) != len(tags):
        raise _BadRowError(f"{len(words)} tokens but {len(tags)} tags; each token needs one")
    if not words:
        raise _BadRowError("'tokens' is empty")
    for i, (word, tag) in enumerate(zip(words, tags, strict=True)):
        if not word.strip():
            raise _BadRowError(f"token {i + 1} is blank")
        if not _TAG.fullmatch(tag):
            raise _BadRowError(
                f"tag {_BRIEF.repr(tag)} of token {i + 1} ({_BRIEF.repr(word)}) is not BIO: expected O, B-TYPE or "
                "I-TYPE"
            )
    return TokenExample(words, tags, row.where)


def _span_example(row: Row, task: Task) -> SpanExample:
    question, context = _text(row, "question"), _text(row, "context")
    answers = tuple(_answers(row.values["answers"]))
    for text, start in answers:
        if start < 0 or context[start : start + len(text)] != text:
            stands = context[max(start, 0) : max(start, 0) + len(text)]
            raise _BadRowError(
                f"the answer {text[:60]!r} is not at answer_start {start} of the context, where {stands[:60]!r} stands "
                "(count characters, not bytes)"
            )
    name = row.values.get("id")
    return SpanExample(row.where if name is None else str(name), question, context, answers, row.where)


_MAKERS: dict[Kind, Callable[[Row, Task], Example]] = {
    "sequence": _text_example,
    "pair": _pair_example,
    "token": _token_example,
    "span": _span_example,
}


def _text(row: Row, field: str) -> str:
    value = row.values[field]
    if not isinstance(value, str):
        raise _BadRowError(f"'{field}' must be text, got {_got(value)}")
    if not value.strip():
        raise _BadRowError(f"'{field}' is blank")
    if len(value) > MAX_TEXT:
        raise _BadRowError(f"'{field}' has {len(value):,} characters, more than {MAX_TEXT:,}; cut it into several rows")
    _check_characters(value, field)
    return value


def _label(row: Row, task: Task) -> str:
    """The label as a name; a number (or its digits) is looked up in the task's label names."""
    value = row.values["label"]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    names = task.label_names
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise _BadRowError(f"'label' must be a word or a number, got {_got(value)}")
    text = str(value).strip()
    if not text:
        raise _BadRowError("'label' is blank")
    if len(text) > MAX_LABEL:
        raise _BadRowError(f"'label' has {len(text):,} characters, more than {MAX_LABEL}: is it another column?")
    if names and re.fullmatch(r"-?[0-9]{1,9}", text):
        if not 0 <= int(text) < len(names):
            known = ", ".join(f"{i} = {name}" for i, name in enumerate(names))
            raise _BadRowError(
                f"label {text} is unknown to task '{task.name}' ({known}); for other labels, write words"
            )
        return names[int(text)]
    _check_characters(text, "label")
    return text


def _strings(row: Row, field: str) -> tuple[str, ...]:
    value = row.values[field]
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        wrong = next((v for v in value if not isinstance(v, str)), None) if isinstance(value, list) else value
        raise _BadRowError(
            f"'{field}' must be a list of strings, got {_got(wrong)}{' in it' * isinstance(value, list)}"
        )
    if len(value) + sum(map(len, value)) > MAX_TEXT:
        raise _BadRowError(f"'{field}' is longer than {MAX_TEXT:,} characters; cut the sentence into several rows")
    for text in value:
        _check_characters(text, field)
    return tuple(value)


def _answers(value: Any) -> Iterable[tuple[str, int]]:
    """Answers in either SQuAD form: {"text": […], "answer_start": […]} or [{"text": …, "answer_start": …}, …]."""
    form = '{"text": ["…"], "answer_start": [0]} or [{"text": "…", "answer_start": 0}]'
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise _BadRowError(f"'answers' must be {form}, with as many texts as starts; got {_got(value)}")
        pairs = list(zip(texts, starts, strict=True))
    elif isinstance(value, list) and all(isinstance(answer, dict) for answer in value):
        pairs = [(answer.get("text"), answer.get("answer_start")) for answer in value]
    else:
        raise _BadRowError(f"'answers' must be {form}; got {_got(value)}")
    for text, start in pairs:
        if not isinstance(text, str) or not text.strip():
            raise _BadRowError(
                f"the text of an answer must be a text, got {_got(text)}; for no answer give no text at all"
            )
        if isinstance(start, bool) or not isinstance(start, int):
            raise _BadRowError(f"'answer_start' must be the index of a character, got {_got(start)}")
        yield text, start


def _check_characters(text: str, field: str) -> None:
    bad = undecodable(text)
    if bad is not None:
        raise _BadRowError(f"'{field}' holds half a surrogate pair at character {bad + 1}; write the whole character")


def _got(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {_BRIEF.repr(value):.60}"
