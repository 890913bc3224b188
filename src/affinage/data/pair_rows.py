"""Rows of two texts, of which the second follows the first in its document or comes from another (BERT's pairs)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affinage.data.packing import cut
from affinage.data.rows import PackedRows
from affinage.errors import InputError

_SPECIAL = 3
FOLLOWS, RANDOM = 0, 1
"""Labels of a row, as transformers' models number them."""


@dataclass(frozen=True, eq=False)
class PairRows(PackedRows):
    """Rows `<cls> A <sep> B <sep>` of at most `row_length` tokens, of a store in which empty texts part documents.

    A row stands for neighbouring lines of a document that fill it. Where A ends is drawn anew each epoch; B is, with
    equal chance, what follows A or as many tokens of another document; the latter where the row has but one piece.
    Devlin et al. 2019 (BERT), arXiv:1810.04805, appendix A.1 and A.2.
    """

    @cached_property
    def _pieces(self) -> NDArray[np.int64]:
        return cut(self.store, (self.row_length - _SPECIAL) // 2)

    @cached_property
    def _document(self) -> NDArray[np.int64]:
        """(P,) to which document each piece belongs, from 0."""
        ends = np.unique(self.store.starts[:-1][np.diff(self.store.starts) == 0])
        return np.unique(np.searchsorted(ends, self._pieces[:, 0], side="right"), return_inverse=True)[1]

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        """(D + 1,) the first piece of each document, and the number of pieces."""
        return np.searchsorted(self._document, np.arange(self._document.max(initial=-1) + 2))

    @cached_property
    def _rows(self) -> list[list[int]]:
        rows: list[list[int]] = []
        room = 0
        before = -1
        for piece, (document, (begin, end)) in enumerate(
            zip(self._document.tolist(), self._pieces.tolist(), strict=True)
        ):
            if document != before or end - begin > room:
                rows.append([])
                room = self.row_length - _SPECIAL
            rows[-1].append(piece)
            room -= end - begin
            before = document
        return rows

    @property
    def tokens(self) -> int:
        """Real tokens in one epoch, special tokens included; a little fewer where another document is shorter."""
        return int((self._pieces[:, 1] - self._pieces[:, 0]).sum()) + _SPECIAL * len(self)

    def check(self, name: str) -> None:
        """Raises: InputError where there are no two documents in what is called `name`."""
        if len(self._bounds) < 3:
            raise InputError(
                f"the {name} text is of one document, and the loss 'nsp' compares it with another: put empty lines "
                "between documents, give several files, or leave the loss out"
            )

    def __getitem__(self, index: tuple[int, int]) -> Any:
        """As `PackedRows`, and (t,) token types before, the row's label behind."""
        epoch, row = index
        variants = self.masker.masking.variants
        variant = epoch if variants is None else epoch % variants
        random = np.random.default_rng((self.seed, variant, row))
        first, second, label = self._pair(self._rows[row], random)
        ids = np.concatenate([[self.cls_id], first, [self.sep_id], second, [self.sep_id]]).astype(np.int64)
        types = np.repeat([0, 1], [len(first) + 2, len(second) + 1])
        masked, labels = self.masker(ids, random)
        return masked, np.ones_like(ids), labels, (variant, row), types, label

    def _pair(self, row: Sequence[int], random: np.random.Generator) -> tuple[Any, Any, int]:
        """Ids of A and of B, and whether B follows."""
        begin, end = int(self._pieces[row[0], 0]), int(self._pieces[row[-1], 1])
        ids = self.store.ids
        alone = len(row) == 1
        middle = end if alone else int(self._pieces[row[int(random.integers(1, len(row)))], 0])
        if not alone and random.random() < 0.5:
            return ids[begin:middle], ids[middle:end], FOLLOWS
        own = int(self._document[row[0]])
        other = int(random.integers(len(self._bounds) - 2))
        other += other >= own
        start, stop = self._bounds[other], self._bounds[other + 1]
        at = int(self._pieces[random.integers(start, stop), 0])
        length = self.row_length - _SPECIAL - (end - begin) if alone else end - middle
        return ids[begin:middle], ids[at : min(at + length, int(self._pieces[stop - 1, 1]))], RANDOM

    def collate(self, items: Sequence[Any]) -> dict[str, Tensor]:
        """As `PackedRows.collate`, and (B, row_length) `token_type_ids`, (B,) `follows`."""
        batch = super().collate([item[:4] for item in items])
        types = torch.zeros_like(batch["input_ids"])
        for i, item in enumerate(items):
            types[i, : len(item[4])] = torch.from_numpy(item[4])
        return {**batch, "token_type_ids": types, "follows": torch.tensor([item[5] for item in items])}
