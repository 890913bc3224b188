"""Which labelled examples a run uses: the parts of a data set, held-out rows, labels that both sides know."""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from affinage.data.corpus import fingerprint
from affinage.data.examples import (
    Example,
    MultiLabelExample,
    PairExample,
    RegressionExample,
    SpanExample,
    TextExample,
    TokenExample,
    labels_of,
    read_examples,
    resolve_columns,
)
from affinage.data.features import texts_of
from affinage.data.readers import find_parts, read_rows
from affinage.data.task import Task
from affinage.errors import DataError, InputError

log = logging.getLogger(__name__)

_ONE_CLASS = re.compile(r"f1:[^,)]+")
"""in the name of a metric, that of one class"""
_LOOKED_AT = 200
"""rows of a test part by which it is told whether it has labels"""
_KEPT_BACK = (None, "", -1, "-1")
"""what stands in the place of a label that is not published"""
HELD_OUT = 0.1
"""Share of the training rows that stand in for a missing valid part."""
CHOOSES = 0.2
"""Share of a dev part that chooses checkpoint and threshold where the task's `dev` is "both"."""
REST = "rest of dev"
"""What is left of that part, to be reported on."""


@dataclass(frozen=True)
class TaskData:
    """The examples of a fine-tuning run, and its labels in the model's order."""

    train: list[Example]
    valid: list[Example]
    test: list[Example]
    """empty where the data has no test part"""
    labels: tuple[str, ...]
    valid_split: str
    """ "valid", or "held-out train" where the data has no valid part, or "part of dev" """
    test_split: str
    """ "test", or what stands for it: "dev", "rest of dev" """
    sources: dict[str, str]
    """part -> file or hub name"""
    notes: tuple[str, ...]
    """what a reader of the scores must know of the data: parts that are slices"""


def training_data(task: Task, data: str | Path, *, columns: Mapping[str, str] | None = None) -> TaskData:
    """Everything that fine-tuning reads; the valid part is a tenth of the training rows where there is none, or where
    the task reports on it.

    Raises: InputError or DataError for whatever cannot be used: no training part, malformed rows, one label only, a
    label of another part that the training part does not have.
    """
    parts = labelled_parts(task, data, columns=columns)
    if "all" in parts:
        parts = {"train": parts["all"]}
    if "train" not in parts:
        raise InputError(f"{data}: has no train part, only {', '.join(parts)}")
    read = {part: read_examples(task, source, columns=columns) for part, source in parts.items()}
    train, valid, split = read["train"], read.get("valid"), "valid"
    test, test_split = read.get("test", []), "test"
    if valid and not test and task.dev != "valid":
        if task.dev == "test":
            test, valid, test_split = valid, None, "dev"
        else:
            test, valid = hold_out(valid, CHOOSES)
            split, test_split = "part of dev", REST
    if valid is None:
        train, valid = hold_out(train, HELD_OUT)
        split = "held-out train"
    if not train or not valid:
        raise InputError(f"{parts['train']}: {len(read['train'])} rows are too few to train on and to hold some out; "
                         "give more rows, or a valid part")  # fmt: skip
    labels = labels_of(task, read["train"])
    found = {label for example in train for label in labels_in(example)}
    if task.kind in ("sequence", "pair") and len(found) < 2:
        raise InputError(f"{parts['train']}: every row has the label '{min(found)}'; a classifier needs at least two")
    if task.kind == "multi_label" and not found:
        raise InputError(f"{parts['train']}: no row has a label; a classifier needs at least one")
    named = {name.partition(":")[2] for metric in task.metrics for name in _ONE_CLASS.findall(metric)}
    if lacking := sorted(named - set(labels)):
        raise InputError(
            f"{parts['train']}: task '{task.name}' is scored by the F1 of '{lacking[0]}', which is none of the labels "
            f"({', '.join(labels)}); write them as the task names them: {', '.join(task.label_names or named)}"
        )
    values = {example.value for example in train if isinstance(example, RegressionExample)}
    if len(values) == 1:
        raise InputError(f"{parts['train']}: every row has the value {min(values):g}; there is nothing to learn")
    for part in ("valid", "test"):
        refuse_unknown_labels(read.get(part, []), labels, where="the train part")
    if task.no_answer and all(isinstance(e, SpanExample) and e.answers for e in valid):
        raise InputError(
            f"{data}: its {split} part has no question without an answer, on which task '{task.name}' tunes its "
            "threshold; make some from answerable ones with: affinage unanswerable DATA --out DIR"
        )
    notes = (*slices(task, {part: len(rows) for part, rows in read.items()}), *_seen_before(train, test, test_split))
    return TaskData(train, valid, test, labels, split, test_split, parts, notes)


def labelled_parts(task: Task, data: str | Path, *, columns: Mapping[str, str] | None = None) -> dict[str, str]:
    """The parts of a dataset, without a test part whose labels are kept back, where the task reports on dev."""
    parts = find_parts(data)
    if task.dev != "valid" and parts.keys() >= {"valid", "test"}:
        named = resolve_columns(task, columns)
        said = named.keys() & {"label", "labels", "tags", "answers"}
        rows = islice(read_rows(parts["test"], columns=named, optional=named), _LOOKED_AT)
        if all(row.values.get(field) in _KEPT_BACK for row in rows for field in said):
            log.info("%s: its test part has no labels, as published; scores are of its dev part", parts["test"])
            del parts["test"]
    return parts


def slices(task: Task, rows: Mapping[str, int]) -> tuple[str, ...]:
    """Which parts have fewer rows than the task says were published, in sentences."""
    return tuple(
        f"{task.name}: its {part} part has {rows[part]:,} of the {official:,} rows published: a slice"
        for part, official in task.official_rows.items()
        if 0 < rows.get(part, 0) < official
    )


def _seen_before(train: Sequence[Example], test: Sequence[Example], split: str) -> list[str]:
    """How many of the test texts are in the training part word for word, in a sentence; nothing where none is."""
    known = {texts_of(example) for example in train}
    count = sum(texts_of(example) in known for example in test)
    return [f"{count:,} of the {len(test):,} texts of the {split} part stand in the training part too"] if count else []


def refuse_unknown_labels(examples: Sequence[Example], labels: Sequence[str], *, where: str) -> None:
    """Raises: DataError at the first example with a label that is not among `labels`, naming both sides' labels."""
    known = set(labels)
    for example in examples:
        for label in labels_in(example):
            if label not in known:
                here = sorted({name for e in examples for name in labels_in(e)})
                raise DataError(f"{example.where}: label '{label}' is unknown to {where}, which has: "
                                f"{', '.join(labels)}; the labels here are: {', '.join(here)}")  # fmt: skip


def labels_in(example: Example) -> tuple[str, ...]:
    """The labels that an example names; none for a question."""
    match example:
        case TextExample() | PairExample():
            return (example.label,)
        case MultiLabelExample():
            return example.labels
        case TokenExample():
            return example.tags
        case RegressionExample() | SpanExample():
            return ()


def hold_out(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """The examples in two parts, the second with about `share` of them, by a hash of what they say.

    The same rows part the same way on every machine and in any order; those with the same text (premise, context)
    stay together, so that none of it is in both parts.
    """
    ranks = [_rank(example) for example in examples]
    limit = share
    if examples and not any(rank < limit for rank in ranks):
        limit = min(ranks) + 1e-12  # few rows: at least one
    kept = [e for e, rank in zip(examples, ranks, strict=True) if rank >= limit]
    held = [e for e, rank in zip(examples, ranks, strict=True) if rank < limit]
    return kept, held


def data_fingerprints(sources: Mapping[str, str]) -> dict[str, str]:
    """Source -> sha256 of its bytes; a hub name stands for itself."""
    paths = {source: Path(source) for source in sources.values()}
    return {source: fingerprint(path) if path.is_file() else source for source, path in paths.items()}


def rename_labels(examples: Sequence[Example], names: Sequence[str]) -> list[Example]:
    """The examples with labels spelt as in `names` where only upper and lower case differ."""
    spelt = {name.casefold(): name for name in names}
    if len(spelt) < len(names):
        return list(examples)

    def name(label: str) -> str:
        return spelt.get(label.casefold(), label)

    renamed: list[Example] = []
    for example in examples:
        match example:
            case TextExample() | PairExample():
                renamed.append(replace(example, label=name(example.label)))
            case MultiLabelExample():
                renamed.append(replace(example, labels=tuple(sorted({name(label) for label in example.labels}))))
            case TokenExample():
                renamed.append(replace(example, tags=tuple(name(tag) for tag in example.tags)))
            case RegressionExample() | SpanExample():
                renamed.append(example)
    return renamed


def _rank(example: Example) -> float:
    """A number in [0, 1) that the example's text decides."""
    match example:
        case TokenExample():
            text = " ".join(example.words)
        case SpanExample():
            text = example.context
        case _:
            text = texts_of(example)[0]
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48
