"""Linear maps and embeddings as Tucker decompositions."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import prod
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.decomposition.digits import digits
from affinage.compression.decomposition.low_rank import FACTORED, Share
from affinage.compression.linear_maps import OnParts, Parts, chosen_parts
from affinage.errors import InputError
from affinage.models.modules.tucker import TuckerEmbedding, TuckerLinear
from affinage.models.replacing import replace_embedding_, replace_module_


@compressors.register("tucker", source="Tucker 1966; De Lathauwer et al. 2000 (higher-order orthogonal iteration)")
@dataclass(frozen=True)
class Tucker(OnParts):
    """Tucker decompositions: a map as a tensor of four sides, a table as one of three, each side with a factor.

    Every side keeps the same share of its length as rank, the largest that leaves the share `keep` of the parameters.
    Started by the SVD of each side and `iterations` rounds of alternating least squares. Smaller, not faster.
    """

    keep: Share = 0.5
    iterations: Annotated[int, Field(ge=0)] = 2
    parts: Parts = "all"

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = FACTORED

    def quick(self) -> "Tucker":
        """Without rounds of least squares."""
        return replace(self, iterations=0)

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        made: PreTrainedModel = deepcopy(model).eval()
        maps, table = chosen_parts(made, self.parts, method="tucker")
        new = {path: module for path, old in maps.items() if (module := self._linear(old)) is not None}
        embedding = None if table is None else self._embedding(table)
        if not new and embedding is None:
            raise InputError(f"tucker: even at rank 1 more than the share {self.keep} would be left; raise keep")
        if embedding is not None:
            replace_embedding_(made, embedding)
        for path, module in new.items():
            replace_module_(made, path, module)
        return made

    @torch.no_grad()
    def _linear(self, old: nn.Linear) -> TuckerLinear | None:
        shape = (*digits(old.out_features, 2), *digits(old.in_features, 2))
        ranks = largest_shares(shape, int(self.keep * old.weight.numel()))
        if ranks is None:
            return None
        new = TuckerLinear(shape, ranks, bias=old.bias is not None)
        core, sides = tucker(old.weight.reshape(shape), ranks, self.iterations)
        _fill([new.core, *new.sides], [core, *sides])
        if new.bias is not None:
            new.bias.copy_(old.bias)
        return new

    @torch.no_grad()
    def _embedding(self, old: nn.Embedding) -> TuckerEmbedding | None:
        shape = digits(old.embedding_dim, 2)
        ranks = largest_shares((old.num_embeddings, *shape), int(self.keep * old.weight.numel()))
        if ranks is None:
            return None
        new = TuckerEmbedding(old.num_embeddings, shape, ranks, old.padding_idx)
        core, (rows, *sides) = tucker(old.weight.reshape(-1, *shape), ranks, self.iterations)
        _fill([new.table.weight, new.core, *new.sides], [rows, core, *sides])
        return new


def possible_ranks(shape: Sequence[int], share: float) -> tuple[int, ...]:
    """This share of each side, at least 1, and no more than the ranks of the others together can tell apart."""
    ranks = [max(1, min(side, int(share * side + 1e-9))) for side in shape]
    return tuple(min(rank, prod(ranks[:k] + ranks[k + 1 :])) for k, rank in enumerate(ranks))


def largest_shares(shape: Sequence[int], budget: int) -> tuple[int, ...] | None:
    """`possible_ranks` of the largest share, in steps of a thousandth, within the budget of parameters."""
    for thousandths in range(1000, -1, -1):
        ranks = possible_ranks(shape, thousandths / 1000)
        if prod(ranks) + sum(side * rank for side, rank in zip(shape, ranks, strict=True)) <= budget:
            return ranks
    return None


def tucker(tensor: Tensor, ranks: Sequence[int], iterations: int) -> tuple[Tensor, list[Tensor]]:
    """The core (ranks) and an orthonormal factor (side, rank) of each side, in float64.

    Each factor holds the largest singular directions of its side, of the tensor first, then of the tensor seen through
    the other factors, which raises what the core keeps from round to round.
    """
    whole = tensor.double()
    sides = [_leading(whole, k, rank) for k, rank in enumerate(ranks)]
    for _ in range(iterations):
        for k, rank in enumerate(ranks):
            sides[k] = _leading(_through(whole, sides, but=k), k, rank)
    return _through(whole, sides), sides


def _through(tensor: Tensor, sides: Sequence[Tensor], *, but: int | None = None) -> Tensor:
    """The tensor with each side (but one) multiplied by its factor: side k of length n becomes one of its rank."""
    for k, side in enumerate(sides):
        if k != but:
            tensor = torch.tensordot(tensor, side, dims=([k], [0])).movedim(-1, k)
    return tensor


def _leading(tensor: Tensor, k: int, rank: int) -> Tensor:
    """(side, rank): of side `k`, the singular directions with most energy."""
    flat = tensor.movedim(k, 0).flatten(1)
    if flat.shape[0] > flat.shape[1]:
        leading: Tensor = torch.linalg.svd(flat, full_matrices=False).U[:, :rank]
        return leading
    found: Tensor = torch.linalg.eigh(flat @ flat.t()).eigenvectors.flip(1)[:, :rank]
    return found


def _fill(targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)
