"""Examples without labels, for a teacher to judge: lines of text, or the text columns of any file of rows."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from affinage.data.encoding import Row as EncodedRow
from affinage.data.examples import (
    MAX_PROBLEMS,
    MAX_ROWS,
    MAX_TEXT,
    Example,
    PairExample,
    SpanExample,
    TextExample,
    TokenExample,
    resolve_columns,
)
from affinage.data.features import IGNORED, Target
from affinage.data.lines import is_gzip, read_lines, undecodable
from affinage.data.readers import Row, read_rows
from affinage.data.task import Task
from affinage.errors import DataError
from affinage.signals import Head

_SAID = {"label", "labels", "tags", "answers", "id"}
"""Fields that say what is right, or which row it is: not needed here."""


def read_unlabelled(task: Task, source: str | Path, *, columns: Mapping[str, str] | None = None) -> list[Example]:
    """The examples of `source`, labels left aside if it has any: `.txt` with one text a line, or as `read_rows`.

    Raises: InputError for a field the task does not have; DataError naming up to `MAX_PROBLEMS` bad rows, or where a
    text file cannot hold the task's examples.
    """
    wanted = {field: column for field, column in resolve_columns(task, columns).items() if field not in _SAID}
    examples: list[Example] = []
    problems: list[str] = []
    for row in _rows(task, source, wanted):
        if len(examples) == MAX_ROWS:
            raise DataError(f"{row.where}: more than {MAX_ROWS:,} rows up to here; give a part of them")
        fault = next((f for field, value in row.values.items() if (f := _fault(field, value))), None)
        if fault is None:
            examples.append(_example(row))
            continue
        problems.append(f"{row.where}: {fault}")
        if len(problems) == MAX_PROBLEMS:
            problems.append(f"… reading stopped after {MAX_PROBLEMS} bad rows")
            break
    if problems:
        raise DataError("\n".join(problems))
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
            return np.full(outputs, np.nan)
        case "regression":
            return np.asarray(np.nan)
        case "classes":
            return IGNORED


def _rows(task: Task, source: str | Path, columns: Mapping[str, str]) -> Iterator[Row]:
    path = Path(source)
    if (path.with_suffix("") if is_gzip(path) else path).suffix.lower() != ".txt":
        yield from read_rows(source, columns=columns)
        return
    if len(columns) > 1:
        raise DataError(
            f"{source}: a line holds one text, and an example of task '{task.name}' has {' and '.join(columns)}; give "
            f"JSONL, CSV or another table with the columns {', '.join(columns.values())}"
        )
    (field,) = columns
    for number, line in read_lines(path):
        if line.strip():
            yield Row({field: line.split() if field == "tokens" else line.strip()}, f"{source}:{number}")


def _example(row: Row) -> Example:
    values = row.values
    if "tokens" in values:
        return TokenExample(tuple(values["tokens"]), ("O",) * len(values["tokens"]), row.where)
    if "question" in values:
        return SpanExample(row.where, values["question"], values["context"], (), row.where)
    if "premise" in values:
        return PairExample(values["premise"], values["hypothesis"], "", row.where)
    return TextExample(values["text"], "", row.where)


def _fault(field: str, value: Any) -> str | None:
    """What is wrong with a text, or with a list of words; None where it can be used."""
    texts = value if field == "tokens" and isinstance(value, list) and value else [value]
    for text in texts:
        if not isinstance(text, str):
            what = "a list of words" if field == "tokens" else "text"
            return f"'{field}' must be {what}, got {type(text).__name__}"
        if not text.strip():
            return f"'{field}' is blank"
        if undecodable(text) is not None:
            return f"'{field}' holds half a surrogate pair; write the whole character"
    if sum(map(len, texts)) > MAX_TEXT:
        return f"'{field}' has more than {MAX_TEXT:,} characters; cut it into several rows"
    return None
