"""Rows and lengths are rounded up, so that products have few shapes; values, gradients and places stay."""

import numpy as np
import pytest
import torch

from affinage.data.collate import pad_rows
from affinage.data.encoding import Row
from affinage.data.padding import round_length
from affinage.signals import in_blocks


@pytest.mark.parametrize(("rows", "padded"), [(0, 0), (1, 64), (64, 64), (65, 128)])
def test_rows_come_in_blocks_of_64(rows: int, padded: int) -> None:
    x = torch.randn(rows, 3, requires_grad=True)
    found = in_blocks(x)
    assert found.shape == (padded, 3)
    assert torch.equal(found[:rows], x) and not found[rows:].any()


def row(length: int) -> Row:
    ids = np.arange(length)
    offsets = np.stack([ids, ids + 1], 1)
    return Row(example=0, input_ids=ids, type_ids=0 * ids, offsets=offsets, sequence_ids=0 * ids)


@pytest.mark.parametrize(
    ("lengths", "most", "expected"), [((3, 5), 100, 8), ((8,), 100, 8), ((9, 2), 13, 13), ((9,), 9, 9)]
)
def test_lengths_are_multiples_of_eight_that_rows_may_have(lengths: tuple[int, ...], most: int, expected: int) -> None:
    rows = [row(length) for length in lengths]
    length = round_length(rows, most=most)
    assert length == expected
    batch = pad_rows(rows, pad_id=1, length=length)
    assert batch["input_ids"].shape == (len(rows), expected)
    assert batch["attention_mask"].sum(1).tolist() == list(lengths)
