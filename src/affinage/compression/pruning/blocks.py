"""Weights that go in a pattern: whole blocks, or all but N of every M."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.pruning.choice import Share
from affinage.compression.pruning.sparsity import SPARSE, filled_by_blocks, made_sparse, matrices, smallest_of_all
from affinage.errors import InputError

Size = Annotated[int, Field(ge=1)]


@compressors.register("prune-blocks", source="Narang et al. 2017, arXiv:1711.02782, section 3.1")
@dataclass(frozen=True)
class PruneBlocks:
    """Sets blocks of weights to zero whose largest weight is smallest, of all matrices together. Smaller, not faster.

    One bit a block says which are left, so that blocks cost less than single weights.
    """

    sparsity: Share = 0.5
    """share of the blocks that becomes zero: ⌊sparsity * n⌋ of n"""
    rows: Size = 4
    """outputs of a block"""
    columns: Size = 4
    """inputs of a block"""

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = SPARSE

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        found = filled_by_blocks(matrices(model, embeddings=False), self.rows, self.columns, ("rows", "columns"))
        scores = {
            path: largest_in_blocks(module.weight.detach(), self.rows, self.columns) for path, module in found.items()
        }
        return made_sparse(model, smallest_of_all(scores, self.sparsity))


@compressors.register("prune-n-m", source="Zhou et al. 2021, arXiv:2102.04010; with large m Cao et al. 2019 (BBS)")
@dataclass(frozen=True)
class PruneNM:
    """Leaves of every `m` neighbouring inputs of an output the `n` largest weights, as 2 of 4. Smaller, not faster.

    Engines with kernels for 2:4 are on GPUs; a large m gives banks with as many weights each (bank-balanced sparsity).
    """

    n: Size = 2
    m: Size = 4

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = SPARSE

    def __post_init__(self) -> None:
        """Raises: InputError where nothing would go."""
        if self.n >= self.m:
            raise InputError(f"prune-n-m: n={self.n} of m={self.m} leaves everything: n is to be less than m")

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        found = filled_by_blocks(matrices(model, embeddings=False), 1, self.m, ("rows", "m"))
        return made_sparse(
            model, {path: all_but(module.weight.detach(), self.n, self.m) for path, module in found.items()}
        )


def largest_in_blocks(weight: Tensor, rows: int, columns: int) -> Tensor:
    """(R / rows, C / columns): max |w| of each block of (R, C)."""
    return weight.abs().view(weight.shape[0] // rows, rows, -1, columns).amax((1, 3))


def all_but(weight: Tensor, n: int, m: int) -> Tensor:
    """(R, C) bool: True but for the n largest |w| of every m neighbours in a row; of equal ones the first stay."""
    order = weight.abs().view(-1, m).sort(dim=1, descending=True, stable=True).indices[:, :n]
    return torch.ones_like(weight, dtype=torch.bool).view(-1, m).scatter(1, order, False).view(weight.shape)
