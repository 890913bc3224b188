"""The rows of a stream as a torch data set of known length: what one training takes of it."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from affinage.data.blocks import Blocks
from affinage.data.rows import Item, PackedRows
from affinage.data.tokens import TokenStore


@dataclass(frozen=True, eq=False)
class StreamedRows(Dataset[Item]):
    """Rows indexed by (block, row): as `PackedRows` by (epoch, row), for every block draws masks of its own."""

    blocks: Blocks

    def __len__(self) -> int:
        """Rows that the whole training takes, over as many epochs as that needs."""
        return self.blocks.wanted

    def __getitem__(self, index: tuple[int, int]) -> Item:
        self.blocks.enter(index[0])
        return self.blocks.rows(index[0])[index]

    @property
    def store(self) -> TokenStore:
        """The first block's."""
        return self.blocks.rows(0).store

    def collate(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """As `PackedRows.collate`."""
        return self.blocks.template.collate(items)

    def tokens_in(self, rows: int) -> int:
        """Real tokens in the first `rows` rows; of a block that training leaves early, its share."""
        tokens = 0.0
        for number in itertools.count():
            note = self.blocks.note(number)
            tokens += note.tokens * min(1.0, (rows - note.first_row) / note.rows)
            if note.first_row + note.rows >= rows:
                return round(tokens)
        raise AssertionError

    def sampler(self, seed: int) -> "BlockSampler":
        """The order in which training takes the rows."""
        return BlockSampler(self.blocks, seed)


class BlockSampler(Sampler[tuple[int, int]]):
    """(block, row) pairs: block after block, the rows of each in an order that seed and block decide."""

    def __init__(self, blocks: Blocks, seed: int) -> None:
        self._blocks, self._seed = blocks, seed

    def set_epoch(self, epoch: int) -> None:
        """The Trainer's epoch is the whole training; the stream counts its own."""

    def __len__(self) -> int:
        return self._blocks.wanted

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for number in itertools.count():
            note = self._blocks.note(number)
            order = np.random.default_rng((self._seed, number)).permutation(note.rows)
            left = len(self) - note.first_row
            for row in order[:left].tolist():
                yield number, row
            if left <= note.rows:
                return


Rows = PackedRows | StreamedRows
"""What a training takes its rows from."""
