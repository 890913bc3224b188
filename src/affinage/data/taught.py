"""The rows of a task that a teacher judges, with labels or without, as a torch data set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from affinage.data.batches import LengthGroups, Lengths
from affinage.data.collate import pad_rows
from affinage.data.encoding import Row
from affinage.data.features import Target
from affinage.data.padding import round_length
from affinage.signals import Batch

Item = tuple[int, Row, Target]


@dataclass(frozen=True, eq=False)
class TaughtRows(Lengths, Dataset[Item]):
    """Rows and what the labels say of each, those without labels included (`data.features.no_target`)."""

    rows: Sequence[Row]
    targets: Sequence[Target]
    pad_id: int
    with_types: bool
    """whether the models take token type ids"""
    batch_size: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | tuple[int, int]) -> Item:
        """An item by its number, or by (epoch, number) as packed rows are: it is the same in every epoch."""
        number = index if isinstance(index, int) else index[1]
        return number, self.rows[number], self.targets[number]

    def sampler(self, seed: int) -> LengthGroups:
        """The order in which training takes the rows."""
        return LengthGroups(self.lengths, self.batch_size, seed)

    def collate(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """One padded batch: `input_ids`, `attention_mask`, `labels`, `places` (B,) numbers of the rows, and
        `token_type_ids` where the models take them, `context` (B, T) where an answer is looked for.
        """
        places, rows, targets = zip(*items, strict=True)
        length = round_length(rows, most=self.longest)
        batch = pad_rows(rows, pad_id=self.pad_id, with_types=self.with_types, labels=targets, length=length)
        if "start_positions" in batch:
            batch["labels"] = torch.stack([batch.pop("start_positions"), batch.pop("end_positions")], 1)
            context = np.zeros(batch["input_ids"].shape, dtype=bool)
            for i, row in enumerate(rows):
                context[i, : len(row.input_ids)] = row.sequence_ids == 1
            batch["context"] = torch.from_numpy(context)
        return {**batch, "places": torch.tensor(places)}


def to_task_batch(
    input_ids: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    token_type_ids: Tensor | None = None,
    context: Tensor | None = None,
    places: Tensor | None = None,
) -> Batch:
    """The Batch of a collated dictionary; what the model sees does not depend on `places`."""
    return Batch(
        input_ids=input_ids,
        mask=attention_mask > 0,
        token_type_ids=token_type_ids,
        labels=labels,
        context=context,
    )
