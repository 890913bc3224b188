"""What an example of each kind of task is, and how rows become examples that are sure to be well formed."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from affinage.data.fields import (
    BRIEF,
    MAX_LABELS,
    BadRowError,
    answers_of,
    got,
    label_of,
    number_of,
    strings_of,
    text_of,
)
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
class MultiLabelExample:
    """One text and every class that holds for it."""

    text: str
    labels: tuple[str, ...]
    """sorted, each once; empty where none holds"""
    where: str


@dataclass(frozen=True)
class RegressionExample:
    """One text, or two, and the number to be predicted."""

    first: str
    second: str | None
    value: float
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


Example: TypeAlias = TextExample | PairExample | MultiLabelExample | RegressionExample | TokenExample | SpanExample

MAX_PROBLEMS = 10
"""Bad rows named in one error."""
MAX_ROWS = 5_000_000
"""Of a part: all of them are kept in memory."""

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
    rows = islice(read_rows(source, columns=chosen, optional=_OPTIONAL), limit)
    return all_made(rows, lambda row: make(row, task))


def all_made(rows: Iterable[Row], make: Callable[[Row], Example]) -> list[Example]:
    """What `make` makes of every row. Raises: DataError naming up to `MAX_PROBLEMS` bad rows, or too many rows."""
    examples: list[Example] = []
    problems: list[str] = []
    for row in rows:
        if len(examples) == MAX_ROWS:
            raise DataError(f"{row.where}: more than {MAX_ROWS:,} rows up to here; give a part of them")
        try:
            examples.append(make(row))
        except BadRowError as problem:
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
    every type, sorted by type. Of a regression the name of its one number; empty for spans.
    """
    if task.kind == "span":
        return ()
    if task.kind == "regression":
        return ("value",)
    if task.kind == "token":
        types = sorted({tag[2:] for e in examples if isinstance(e, TokenExample) for tag in e.tags if tag != "O"})
        return ("O", *(f"{prefix}-{name}" for name in types for prefix in "BI"))
    found = {e.label for e in examples if isinstance(e, TextExample | PairExample)}
    found |= {label for e in examples if isinstance(e, MultiLabelExample) for label in e.labels}
    if task.label_names and found <= set(task.label_names):
        return task.label_names
    return tuple(sorted(found))


def _text_example(row: Row, task: Task) -> TextExample:
    return TextExample(text_of(row, "text"), label_of(row.values["label"], task), row.where)


def _pair_example(row: Row, task: Task) -> PairExample:
    label = label_of(row.values["label"], task)
    return PairExample(text_of(row, "premise"), text_of(row, "hypothesis"), label, row.where)


def _multi_label_example(row: Row, task: Task) -> MultiLabelExample:
    value = row.values["labels"]
    if isinstance(value, str):  # a cell of a table
        value = [part for part in value.split("|") if part.strip()]
    if not isinstance(value, list):
        raise BadRowError(
            "'labels' must be a list of labels (in a table: one cell, | between them, empty for none), got "
            f"{got(value)}"
        )
    if len(value) > MAX_LABELS:
        raise BadRowError(f"'labels' has {len(value):,} entries, more than {MAX_LABELS}: is it another column?")
    return MultiLabelExample(text_of(row, "text"), tuple(sorted({label_of(one, task) for one in value})), row.where)


def _regression_example(row: Row, task: Task) -> RegressionExample:
    paired = "hypothesis" in task.columns
    first, second = (text_of(row, "premise"), text_of(row, "hypothesis")) if paired else (text_of(row, "text"), None)
    return RegressionExample(first, second, number_of(row.values["label"]), row.where)


def _token_example(row: Row, task: Task) -> TokenExample:
    words, tags = strings_of(row, "tokens"), strings_of(row, "tags")
    if len(words) != len(tags):
        raise BadRowError(f"{len(words)} tokens but {len(tags)} tags; each token needs one")
    if not words:
        raise BadRowError("'tokens' is empty")
    for i, (word, tag) in enumerate(zip(words, tags, strict=True)):
        if not word.strip():
            raise BadRowError(f"token {i + 1} is blank")
        if not _TAG.fullmatch(tag):
            raise BadRowError(
                f"tag {BRIEF.repr(tag)} of token {i + 1} ({BRIEF.repr(word)}) is not BIO: expected O, B-TYPE or I-TYPE"
            )
    return TokenExample(words, tags, row.where)


def _span_example(row: Row, task: Task) -> SpanExample:
    question, context = text_of(row, "question"), text_of(row, "context")
    answers = tuple(answers_of(row.values["answers"]))
    for text, start in answers:
        if start < 0 or context[start : start + len(text)] != text:
            stands = context[max(start, 0) : max(start, 0) + len(text)]
            raise BadRowError(
                f"the answer {text[:60]!r} is not at answer_start {start} of the context, where {stands[:60]!r} stands "
                "(count characters, not bytes)"
            )
    name = row.values.get("id")
    return SpanExample(row.where if name is None else str(name), question, context, answers, row.where)


_MAKERS: dict[Kind, Callable[[Row, Task], Example]] = {
    "sequence": _text_example,
    "pair": _pair_example,
    "multi_label": _multi_label_example,
    "regression": _regression_example,
    "token": _token_example,
    "span": _span_example,
}
