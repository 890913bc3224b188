"""Packed, masked rows as a torch data set whose every item is a function of seed, epoch and row alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from affinage.data.masking import Masker
from affinage.data.packing import cut, pack
from affinage.data.tokens import TokenStore
from affinage.signals import IGNORED, Batch

Item = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], tuple[int, int]]


@dataclass(frozen=True, eq=False)
class PackedRows(Dataset[Item]):
    """Rows of `row_length` tokens. Indexed by (epoch, row): another epoch has other masks, or the next variant's."""

    store: TokenStore
    masker: Masker
    cls_id: int
    sep_id: int
    pad_id: int
    row_length: int
    seed: int

    @cached_property
    def _pieces(self) -> NDArray[np.int64]:
        return cut(self.store, self.row_length - 2)

    @cached_property
    def _rows(self) -> list[list[int]]:
        return pack(self._pieces[:, 1] - self._pieces[:, 0] + 2, self.row_length)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def tokens(self) -> int:
        """Real tokens in one epoch, special tokens included."""
        return int((self._pieces[:, 1] - self._pieces[:, 0] + 2).sum())

    def tokens_in(self, rows: int) -> int:
        """Real tokens in the first `rows` rows of a training, over several epochs if need be."""
        return round(self.tokens * rows / len(self))

    def sampler(self, seed: int) -> "EpochSampler":
        """The order in which training takes the rows."""
        return EpochSampler(len(self), seed)

    def __getitem__(self, index: tuple[int, int]) -> Item:
        """(t,) masked ids, (t,) segment numbers from 1, (t,) labels, and (variant, row); t <= row_length.

        Items of the same variant and row are the same.
        """
        epoch, row = index
        variants = self.masker.masking.variants
        variant = epoch if variants is None else epoch % variants
        ends = self._pieces[self._rows[row]].tolist()
        length = sum(end - begin + 2 for begin, end in ends)
        ids, segments = np.empty(length, np.int64), np.empty(length, np.int64)
        at = 0
        for number, (begin, end) in enumerate(ends, start=1):
            behind = at + end - begin + 2
            ids[at], ids[behind - 1] = self.cls_id, self.sep_id
            ids[at + 1 : behind - 1] = self.store.ids[begin:end]
            segments[at:behind] = number
            at = behind
        masked, labels = self.masker(ids, np.random.default_rng((self.seed, variant, row)))
        return masked, segments, labels, (variant, row)

    def collate(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Items -> (B, row_length) `input_ids`, `segments`, `labels`, padded, and (B, 2) `places`: variant and row."""
        *columns, places = zip(*items, strict=True)
        fills = {"input_ids": self.pad_id, "segments": 0, "labels": IGNORED}
        batch = {}
        for (name, fill), column in zip(fills.items(), columns, strict=True):
            table = np.full((len(items), self.row_length), fill, dtype=np.int64)
            for i, values in enumerate(column):
                table[i, : len(values)] = values
            batch[name] = torch.from_numpy(table)
        return {**batch, "places": torch.tensor(places)}


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, row) pairs in an order that seed and epoch decide; `set_epoch` is called by the Trainer."""

    def __init__(self, rows: int, seed: int) -> None:
        self.rows, self.seed, self.epoch = rows, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.rows)
        return ((self.epoch, int(row)) for row in order)


def to_batch(
    input_ids: Tensor,
    segments: Tensor,
    labels: Tensor,
    places: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    follows: Tensor | None = None,
) -> Batch:
    """The Batch of a collated dictionary; what the model sees does not depend on `places`."""
    return Batch(
        input_ids=input_ids,
        mask=segments > 0,
        segments=segments,
        token_type_ids=token_type_ids,
        labels=labels,
        follows=follows,
    )
