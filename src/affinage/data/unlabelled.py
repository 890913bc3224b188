"""Examples without labels, for a teacher to judge: lines of text, or the text columns of any file of rows."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from affinage.data.encoding import Row as EncodedRow
from affinage.data.examples import (
    Example,
    MultiLabelExample,
    PairExample,
    RegressionExample,
    SpanExample,
    TextExample,
    TokenExample,
    all_made,
    resolve_columns,
)
from affinage.data.features import IGNORED, Target
from affinage.data.fields import BadRowError, strings_of, text_of
from affinage.data.lines import is_gzip, read_lines
from affinage.data.readers import Row, read_rows
from affinage.data.task import Task
from affinage.errors import DataError
from affinage.signals import Head

_SAID = {"label", "labels", "tags", "answers", "id"}
"""Fields that say what is right, or which row it is: not needed here."""


def read_unlabelled(task: Task, source: str | Path, *, columns: Mapping[str, str] | None = None) -> list[Example]:
    """The examples of `source`, labels left aside if it has any: `.txt` with one text a line, or as `read_rows`.

    What they say of labels means nothing. Raises: InputError for a field the task does not have; DataError naming up to
    `MAX_PROBLEMS` bad rows, or where a text file cannot hold the task's examples.
    """
    own, named = resolve_columns(task), resolve_columns(task, columns)
    wanted = {field: column for field, column in named.items() if field not in _SAID}
    if named != own and not _is_lines(source):  # that the labelled rows' columns have other names says little of these
        first = next(read_rows(source, columns=wanted, optional=wanted)).values
        wanted = {field: column if field in first else own[field] for field, column in wanted.items()}
    examples = all_made(_rows(task, source, wanted), lambda row: _example(row, task))
    if not examples:
        raise DataError(f"{source}:1: is empty: no text in it")
    return examples


def no_target(row: EncodedRow, head: Head, outputs: int) -> Target:
    """The target of a row without a label: IGNORED at every place that one may have, NaN for real numbers."""
    match head:
        case "token":
            return np.full(len(row.input_ids), IGNORED, np.int64)
        case "span":
            return IGNORED, IGNORED
        case "multi_label":
            return np.full(outputs, np.nan, np.float32)
        case "regression":
            return float("nan")
        case "classes":
            return IGNORED


def _rows(task: Task, source: str | Path, columns: Mapping[str, str]) -> Iterator[Row]:
    if not _is_lines(source):
        yield from read_rows(source, columns=columns)
        return
    if len(columns) > 1:
        raise DataError(
            f"{source}: a line holds one text, and an example of task '{task.name}' has {' and '.join(columns)}; give "
            f"JSONL, CSV or another table with the columns {', '.join(columns.values())}"
        )
    (field,) = columns
    for number, line in read_lines(Path(source)):
        if line.strip():
            yield Row({field: line.split() if field == "tokens" else line.strip()}, f"{source}:{number}")


def _is_lines(source: str | Path) -> bool:
    path = Path(source)
    return (path.with_suffix("") if is_gzip(path) else path).suffix.lower() == ".txt"


def _example(row: Row, task: Task) -> Example:
    match task.kind:
        case "token":
            words = strings_of(row, "tokens")
            if not all(word.strip() for word in words) or not words:
                raise BadRowError("'tokens' is empty, or one of them is blank")
            return TokenExample(words, ("O",) * len(words), row.where)
        case "span":
            return SpanExample(row.where, text_of(row, "question"), text_of(row, "context"), (), row.where)
        case "multi_label":
            return MultiLabelExample(text_of(row, "text"), (), row.where)
        case "sequence":
            return TextExample(text_of(row, "text"), "", row.where)
    first = text_of(row, "premise" if "premise" in task.columns else "text")
    second = text_of(row, "hypothesis") if "hypothesis" in task.columns else None
    if task.kind == "regression":
        return RegressionExample(first, second, 0.0, row.where)
    return PairExample(first, str(second), "", row.where)
