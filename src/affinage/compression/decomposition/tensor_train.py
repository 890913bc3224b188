"""Linear maps and embeddings as tensor trains."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Side, Traits, compressors
from affinage.compression.decomposition.digits import digits, digits_of_at_least
from affinage.compression.decomposition.low_rank import FACTORED, Rank, Share
from affinage.compression.linear_maps import OnParts, Parts, chosen_parts
from affinage.errors import InputError
from affinage.models.modules.tensor_train import TensorTrainEmbedding, TensorTrainLinear
from affinage.models.replacing import replace_embedding_, replace_module_


@compressors.register(
    "tensor-train",
    source="Oseledets 2011 (TT-SVD); Novikov et al. 2015, arXiv:1509.06569; Khrulkov et al. 2019, arXiv:1901.10787",
)
@dataclass(frozen=True)
class TensorTrain(OnParts):
    """Tensor trains of `cores` cores for maps and embeddings, started by successive SVDs (TT-SVD).

    No rank between cores is above `rank`, or above the largest that leaves the share `keep` of the matrix (0.5 where
    neither is said). Smaller, not faster: a map's matrix is made whenever it is used.
    """

    rank: Rank | None = None
    keep: Share | None = None
    cores: Annotated[int, Field(ge=2, le=6)] = 3
    parts: Parts = "all"

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = FACTORED

    def __post_init__(self) -> None:
        """Raises: InputError where the rank is said twice."""
        if self.rank is not None and self.keep is not None:
            raise InputError("tensor-train: rank and keep both say the rank; leave one out")

    @property
    def uses_up(self) -> frozenset[Side]:
        """Nothing for certain where a rank may leave small matrices whole."""
        return frozenset() if self.rank is not None else self.works_on

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        made: PreTrainedModel = deepcopy(model).eval()
        maps, table = chosen_parts(made, self.parts, method="tensor-train")
        new = {path: module for path, old in maps.items() if (module := self._linear(old)) is not None}
        embedding = None if table is None else self._embedding(table)
        if not new and embedding is None:
            raise InputError("tensor-train: cores of this rank are no smaller than the matrices; take a smaller rank")
        if embedding is not None:
            replace_embedding_(made, embedding)
        for path, module in new.items():
            replace_module_(made, path, module)
        return made

    def _ranks(self, rows: Sequence[int], columns: Sequence[int], size: int) -> tuple[int, ...] | None:
        """Those between the cores, for a matrix of `size` entries; None where the cores would be no smaller."""
        sides = [m * n for m, n in zip(rows, columns, strict=True)]
        if self.rank is None:
            return largest_ranks(sides, int((self.keep or 0.5) * size))
        ranks = capped_ranks(sides, self.rank)
        return ranks if train_size(sides, ranks) < size else None

    @torch.no_grad()
    def _linear(self, old: nn.Linear) -> TensorTrainLinear | None:
        rows, columns = digits(old.out_features, self.cores), digits(old.in_features, self.cores)
        ranks = self._ranks(rows, columns, old.weight.numel())
        if ranks is None:
            return None
        new = TensorTrainLinear(rows, columns, ranks, bias=old.bias is not None)
        _fill(new.cores, train_cores(old.weight, rows, columns, ranks))
        if new.bias is not None:
            new.bias.copy_(old.bias)
        return new

    @torch.no_grad()
    def _embedding(self, old: nn.Embedding) -> TensorTrainEmbedding | None:
        rows = digits_of_at_least(old.num_embeddings, self.cores)
        columns = digits(old.embedding_dim, self.cores)
        ranks = self._ranks(rows, columns, old.weight.numel())
        if ranks is None:
            return None
        new = TensorTrainEmbedding(old.num_embeddings, rows, columns, ranks, old.padding_idx)
        padded = torch.cat([old.weight, old.weight.new_zeros(prod(rows) - len(old.weight), old.embedding_dim)])
        _fill(new.cores, train_cores(padded, rows, columns, ranks))
        return new


def capped_ranks(sides: Sequence[int], rank: int) -> tuple[int, ...]:
    """Ranks between cores of these sides: at most `rank`, and no more than the sides before or after can tell apart."""
    return tuple(min(rank, prod(sides[:k]), prod(sides[k:])) for k in range(1, len(sides)))


def train_size(sides: Sequence[int], ranks: Sequence[int]) -> int:
    """Parameters of the cores."""
    ends = (1, *ranks, 1)
    return sum(a * side * b for a, side, b in zip(ends[:-1], sides, ends[1:], strict=True))


def largest_ranks(sides: Sequence[int], budget: int) -> tuple[int, ...] | None:
    """`capped_ranks` of the largest rank within the budget of parameters; None where rank 1 is not."""
    low, high = 0, prod(sides)  # the size does not decrease with the rank
    while low < high:
        middle = (low + high + 1) // 2
        if train_size(sides, capped_ranks(sides, middle)) <= budget:
            low = middle
        else:
            high = middle - 1
    return capped_ranks(sides, low) if low else None


def train_cores(weight: Tensor, rows: Sequence[int], columns: Sequence[int], ranks: Sequence[int]) -> list[Tensor]:
    """Cores (r, m, n, r') of (product of rows, product of columns) by TT-SVD (Oseledets 2011, algorithm 1)."""
    count = len(rows)
    pairs = [axis for k in range(count) for axis in (k, count + k)]
    left = weight.double().reshape(*rows, *columns).permute(pairs).reshape(1, -1)
    made = []
    before = 1
    for m, n, rank in zip(rows, columns, ranks, strict=False):  # the last core is what is left
        u, s, v = torch.linalg.svd(left.reshape(before * m * n, -1), full_matrices=False)
        made.append(u[:, :rank].reshape(before, m, n, rank))
        left, before = s[:rank, None] * v[:rank], rank
    made.append(left.reshape(before, rows[-1], columns[-1], 1))
    return made


def _fill(cores: nn.ParameterList, values: Sequence[Tensor]) -> None:
    """Copy, with the length shared out evenly: TT-SVD leaves all of it in the last core."""
    length = prod(float(value.norm()) for value in values) ** (1 / len(values))
    for core, value in zip(cores, values, strict=True):
        norm = float(value.norm())
        core.copy_(value * (length / norm if norm else 1.0))
