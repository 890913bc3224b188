"""Labelled rows as a torch data set, and an order that puts rows of like length into one batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from affinage.data.collate import pad_rows
from affinage.data.encoding import Row
from affinage.data.features import Target
from affinage.data.padding import round_length

Item = tuple[Row, Target]

_POOL = (
    50  # batches that are sorted together, at most: wide enough to leave little padding, narrow enough to stay random
)


class Lengths:
    """How long the rows of a set are, counted once."""

    rows: Sequence[Row]

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of every row."""
        return [len(row.input_ids) for row in self.rows]

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(self.lengths)


@dataclass(frozen=True, eq=False)
class LabelledRows(Lengths, Dataset[Item]):
    """Rows and what the model should give for each."""

    rows: Sequence[Row]
    targets: Sequence[Target]
    pad_id: int
    with_types: bool
    """whether the model takes token type ids"""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Item:
        return self.rows[index], self.targets[index]

    def collate(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """One padded batch."""
        rows, targets = zip(*items, strict=True)
        length = round_length(rows, most=self.longest)
        return pad_rows(rows, pad_id=self.pad_id, with_types=self.with_types, labels=targets, length=length)


class LengthGroups(Sampler[int]):
    """Row indices in an order that seed and epoch decide, consecutive `batch_size` of them being of like length.

    The longest batch comes first, so that memory that does not suffice is found out at once.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = np.asarray(lengths), batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer, also when it resumes."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        # Small sets make small pools: where length goes with the label, a batch would else hold one label only.
        size = self.batch_size * max(1, min(_POOL, len(order) // (4 * self.batch_size)))
        batches: list[np.ndarray] = []
        for start in range(0, len(order), size):
            pool = order[start : start + size]
            pool = pool[np.argsort(-self.lengths[pool], kind="stable")]
            batches += [pool[i : i + self.batch_size] for i in range(0, len(pool), self.batch_size)]
        # Only the last of all may be smaller, and it stays last, or the batches after it would be cut elsewhere.
        rest = [batches.pop()] if len(batches[-1]) < self.batch_size else []
        batches = [batches[i] for i in random.permutation(len(batches))]
        if batches:
            longest = max(range(len(batches)), key=lambda i: int(self.lengths[batches[i]].max()))
            batches.insert(0, batches.pop(longest))
        return (int(index) for batch in [*batches, *rest] for index in batch)
