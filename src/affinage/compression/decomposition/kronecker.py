"""Linear maps and embeddings as sums of Kronecker products."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.decomposition.directions import directions, factors, table_directions, table_factors
from affinage.compression.decomposition.low_rank import FACTORED
from affinage.compression.linear_maps import OnParts, Parts, chosen_parts
from affinage.errors import InputError
from affinage.models.modules.kronecker import KroneckerEmbedding, KroneckerLinear
from affinage.models.replacing import replace_embedding_, replace_module_


@compressors.register(
    "kronecker", source="Tahaei et al. 2022 (KroneckerBERT), arXiv:2109.06243; Van Loan & Pitsianis 1993"
)
@dataclass(frozen=True)
class Kronecker(OnParts):
    """Each map becomes the nearest sum of `terms` Kronecker products A ⊗ B with B of `block` × `block`.

    That leaves about terms / block² of a map, terms / block of a table, of which the B are rows. With block² terms, or
    block for the table, it is exact.
    """

    block: Annotated[int, Field(ge=2)] = 2
    terms: Annotated[int, Field(ge=1)] = 1
    parts: Parts = "all"

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = FACTORED

    def __post_init__(self) -> None:
        """Raises: InputError where the products would be no smaller than what they stand for, whatever its size."""
        exact = self.block if self.parts == "embeddings" else self.block**2
        if self.terms >= exact:
            raise InputError(
                f"kronecker: {self.terms} terms of block {self.block} are no smaller than what they stand for; at most "
                f"{exact - 1}"
            )

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        made: PreTrainedModel = deepcopy(model).eval()
        maps, table = chosen_parts(made, self.parts, method="kronecker")
        if table is not None:
            self._check("the embeddings", (table.embedding_dim,))
            if self.terms >= self.block:
                raise InputError(
                    f"kronecker: {self.terms} terms of block {self.block} are no smaller than the embeddings whole; at "
                    f"most {self.block - 1}, or leave them out with parts=linears"
                )
        refused = ""
        for path, module in list(maps.items()):
            try:
                self._check(path, (module.in_features, module.out_features))
            except InputError as error:  # an earlier cut may leave maps of any size: those stay whole
                refused = refused or str(error)
                del maps[path]
        if refused and not maps:
            raise InputError(refused)
        if table is not None:
            replace_embedding_(made, self._embedding(table))
        for path, module in maps.items():
            replace_module_(made, path, self._linear(module))
        return made

    def _check(self, path: str, sizes: tuple[int, ...]) -> None:
        if any(size % self.block for size in sizes):
            shape = " × ".join(map(str, reversed(sizes)))
            raise InputError(f"kronecker: block {self.block} does not divide {path}, {shape}; take one that does")

    @torch.no_grad()
    def _linear(self, old: nn.Linear) -> KroneckerLinear:
        new = KroneckerLinear(old.in_features, old.out_features, self.block, self.terms, bias=old.bias is not None)
        left, right = kronecker_factors(old.weight, self.block, self.terms)
        new.left.copy_(left)
        new.right.copy_(right)
        if new.bias is not None:
            new.bias.copy_(old.bias)
        return new

    @torch.no_grad()
    def _embedding(self, old: nn.Embedding) -> KroneckerEmbedding:
        new = KroneckerEmbedding(old.num_embeddings, old.embedding_dim, self.block, self.terms, old.padding_idx)
        pieces = old.weight.reshape(-1, self.block)
        left, right = table_factors(pieces, table_directions(pieces), self.terms)
        new.table.weight.copy_(left.reshape(old.num_embeddings, -1, self.terms).transpose(1, 2).flatten(1))
        new.right.copy_(right.t())
        return new


def kronecker_factors(weight: Tensor, block: int, terms: int) -> tuple[Tensor, Tensor]:
    """(terms, out / block, in / block) and (terms, block, block): the nearest sum of Kronecker products to (out, in).

    A block of W is a row of a matrix of which a sum of products is a matrix of that rank (Van Loan & Pitsianis 1993).
    """
    out, in_ = weight.shape[0] // block, weight.shape[1] // block
    blocks = weight.reshape(out, block, in_, block).transpose(1, 2).reshape(out * in_, block * block)
    left, right = factors(blocks, directions(blocks), terms)
    return left.t().reshape(terms, out, in_), right.reshape(terms, block, block)
