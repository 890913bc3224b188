"""What every example added to a score, kept beside a report: `examples.json`, from which systems are compared."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from affinage.errors import InputError
from affinage.evaluation.metrics import Floats, metric

NAME = "examples.json"


@dataclass(frozen=True)
class PartScores:
    """One part of a task as one model did on it."""

    fingerprint: str
    """sha256 of the part's references, in their order: two models are compared on equal ones only"""
    rows: Mapping[str, Floats]
    """metric -> (n, k) statistics of its n examples (`evaluation.metrics`)"""


@dataclass(frozen=True)
class ExampleScores:
    """The parts of a task that a model was scored on."""

    task: str
    parts: Mapping[str, PartScores]


def references_fingerprint(references: Sequence[Any]) -> str:
    """sha256 of what should be predicted for every example (`evaluator.references`), in order."""
    text = json.dumps(list(references), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def write_example_scores(folder: Path, scores: ExampleScores) -> Path:
    """Write `examples.json` into a folder; whole numbers are written as such."""
    parts = {
        name: {"fingerprint": part.fingerprint, "metrics": {key: _numbers(rows) for key, rows in part.rows.items()}}
        for name, part in scores.parts.items()
    }
    path = folder / NAME
    text = json.dumps({"schema_version": 1, "task": scores.task, "parts": parts}, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8")
    return path


def read_example_scores(folder: Path) -> ExampleScores:
    """Read `examples.json` of a folder. Raises: InputError where it is missing, or no file of this version."""
    path = folder / NAME
    try:
        read = _File.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"'{folder}' has no {NAME}, which holds what comparisons are made from; an older affinage made it: run its "
            "command again"
        ) from None
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"'{path}': {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    parts = {
        name: PartScores(p.fingerprint, _checked(p.metrics, f"'{path}': {name}")) for name, p in read.parts.items()
    }
    return ExampleScores(read.task, parts)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    fingerprint: str
    metrics: dict[str, list[list[float]]]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1]
    task: str
    parts: dict[str, _Part]


def _checked(metrics: Mapping[str, list[list[float]]], where: str) -> dict[str, Floats]:
    """(n, k) arrays, n the same for all but those of some examples only.

    Raises: InputError where they are none, or no statistics of their metric.
    """
    try:
        measures = {name: metric(name) for name in metrics}
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    counts = {name: len(rows) for name, rows in metrics.items()}
    whole = {count for name, count in counts.items() if not measures[name].of_some}
    if len(whole) != 1 or not all(0 < count <= max(whole) for count in counts.values()):
        raise InputError(f"{where}: expected the same number of rows for every metric, found {counts or 'no metric'}")
    found = {}
    for name, rows in metrics.items():
        measure = measures[name]
        try:
            array = np.array(rows, np.float64)
            score = float(measure.aggregate(array.sum(axis=0)))
        except (ValueError, IndexError):  # rows of unequal length, or too few columns
            score = float("nan")
        if not measure.lowest <= score <= 1:
            raise InputError(f"{where}: the rows of {name} are no statistics of this metric")
        found[name] = array
    return found


def _numbers(rows: Floats) -> list[list[float]]:
    return [[int(value) if value.is_integer() else value for value in row] for row in rows.tolist()]
