"""Rows with and without labels in one batch: what has no label counts for no loss against labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affinage.data.encoding import Row
from affinage.data.examples import MultiLabelExample, PairExample, RegressionExample, SpanExample, TokenExample
from affinage.data.features import Target
from affinage.data.task import load_task
from affinage.data.taught import TaughtRows, to_task_batch
from affinage.data.unlabelled import no_target, read_unlabelled
from affinage.errors import DataError
from affinage.losses.task import LabelLoss
from affinage.signals import Signals
from tiny_data import rows_of, write_rows

TARGETS: dict[Any, Target] = {
    "classes": 1,
    "multi_label": np.array([1, 0], np.float32),
    "regression": 2.5,
    "token": np.array([-100, 1, 0, -100, -100]),
    "span": (1, 3),
}


def row(example: int, tokens: int = 5) -> Row:
    ids = np.arange(tokens)
    return Row(example, ids, 0 * ids, np.zeros((tokens, 2), np.int64), np.where(ids > 1, 1, 0))


@pytest.mark.parametrize("head", TARGETS)
def test_a_row_without_a_label_counts_for_the_teacher_alone(head: Any) -> None:
    rows = [row(0), row(1, 4)]
    taught = TaughtRows(rows, [TARGETS[head], no_target(rows[1], head, 2)], 0, False, 2)
    inputs = taught.collate([taught[0], taught[(3, 1)]])
    assert inputs["places"].tolist() == [0, 1]
    batch = to_task_batch(**inputs)
    shape = {"token": (2, 5, 2), "span": (2, 5, 2), "regression": (2, 1)}.get(head, (2, 2))
    loss = LabelLoss(head)
    found = loss(Signals(logits=torch.zeros(shape)), Signals(), batch)
    assert found.count == loss.positions(batch).sum() == (2 if head == "token" else 1)
    assert found.total.isfinite() and found.total > 0
    assert (batch.context is not None) == (head == "span")
    if batch.context is not None:
        assert batch.context.tolist() == [[False, False, True, True, True], [False, False, True, True, False]]


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("nli", PairExample),
        ("ner", TokenExample),
        ("qa", SpanExample),
        ("topics", MultiLabelExample),
        ("rating", RegressionExample),
    ],
)
def test_labels_are_left_aside(task: str, kind: type, tmp_path: Path) -> None:
    rows = [
        {key: value for key, value in one.items() if key not in ("label", "tags", "id")} for one in rows_of(task, 3)
    ]
    found = read_unlabelled(load_task(task), write_rows(tmp_path / "more.jsonl", rows))
    assert len(found) == 3 and all(isinstance(example, kind) for example in found)


def test_a_text_file_is_a_text_a_line(tmp_path: Path) -> None:
    path = tmp_path / "more.txt"
    path.write_text("Une phrase.\n\n  Deux mots \n")
    texts = read_unlabelled(load_task("sentiment"), path)
    assert [(e.text, e.where) for e in texts] == [("Une phrase.", f"{path}:1"), ("Deux mots", f"{path}:3")]  # type: ignore[union-attr]
    assert [e.words for e in read_unlabelled(load_task("ner"), path)][1] == ("Deux", "mots")  # type: ignore[union-attr]
    with pytest.raises(DataError, match="an example of task 'nli' has premise and hypothesis"):
        read_unlabelled(load_task("nli"), path)
    path.write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        read_unlabelled(load_task("sentiment"), path)
    rows = write_rows(tmp_path / "more.jsonl", [{"tokens": ["a", " "]}])
    with pytest.raises(DataError, match=r"more\.jsonl:1: 'tokens' is empty, or one of them is blank"):
        read_unlabelled(load_task("ner"), rows)
