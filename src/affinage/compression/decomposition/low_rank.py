"""What the low-rank methods have in common: how ranks are said, chosen and put into the model."""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Side, Traits
from affinage.compression.decomposition.directions import (
    Directions,
    directions,
    factors,
    table_directions,
    table_factors,
)
from affinage.compression.decomposition.ranks import Candidate, Ranks, at_rank, by_energy, evenly, out_of_budget
from affinage.compression.linear_maps import OnParts, Parts, chosen_parts
from affinage.errors import InputError
from affinage.models.modules.low_rank import LowRankEmbedding, LowRankLinear
from affinage.models.replacing import replace_embedding_, replace_module_, word_embedding_path

log = logging.getLogger(__name__)

FACTORED = Traits(
    paradigm="decomposition",
    takes=frozenset({"dense", "uneven", "factored", "shared", "packed-table", "stock-albert"}),
    leaves=frozenset({"factored"}),
)
"""What every method here takes and leaves: zeros would be filled, and integers are no matrix to be decomposed
(a packed table is left as it is)."""

Share = Annotated[float, Field(gt=0, lt=1)]
Energy = Annotated[float, Field(gt=0, le=1)]
Rank = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Matrix:
    """One that may be decomposed."""

    path: str
    module: nn.Linear | nn.Embedding
    importance: Tensor | None = None
    """of its inputs: (in, in), or the diagonal (in,); of a table's rows (V,). None: all alike"""
    mean: Tensor | None = None
    """(in,): of its inputs, around which `importance` is taken: the bias makes up for the error in the mean"""

    @property
    def found(self) -> Directions:
        """A table's are those of its transpose."""
        found = table_directions if isinstance(self.module, nn.Embedding) else directions
        return found(self.module.weight, self.importance)


@dataclass(frozen=True)
class LowRank(OnParts):
    """Fields and flow of a method that makes two thin maps of each; `keep=0.5` where no rank is said."""

    rank: Rank | None = None
    energy: Energy | None = None
    keep: Share | None = None
    allot: Literal["even", "energy"] = "even"
    parts: Parts = "all"

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = FACTORED
    relative: ClassVar[bool] = True
    """whether a matrix's energies are compared with another's as shares of its own"""

    def __post_init__(self) -> None:
        """Raises: InputError where the rank is said twice."""
        given = [key for key in ("rank", "energy", "keep") if getattr(self, key) is not None]
        if len(given) > 1:
            raise InputError(f"{self.name}: {' and '.join(given)} both say the rank; leave one out")
        if self.allot == "energy" and given not in ([], ["keep"]):
            raise InputError(f"{self.name}: allot=energy spends a budget, keep; leave {given[0]} out")

    @property
    def uses_up(self) -> frozenset[Side]:
        """Nothing for certain where a rank, or a budget for all, may leave some matrices whole."""
        shared_out = self.rank is not None or self.energy is not None or self.allot != "even"
        return frozenset() if shared_out else self.works_on

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        made: PreTrainedModel = deepcopy(model).eval()
        maps, table = chosen_parts(made, self.parts, method=self.name)
        matrices = self.matrices(made, maps, table, resources)
        found = [matrix.found for matrix in matrices]
        ranks = self.ranks(candidates(matrices, found, relative=self.relative))
        refuse_no_gain(ranks, matrices, self.name)
        for matrix, spectrum, rank in zip(matrices, found, ranks, strict=True):
            if rank is not None:
                put_(made, matrix, spectrum, rank)
        return made

    def matrices(
        self, model: PreTrainedModel, maps: Mapping[str, nn.Linear], table: nn.Embedding | None, resources: Resources
    ) -> list[Matrix]:
        """What is decomposed, with what counts in it."""
        raise NotImplementedError

    def ranks(self, matrices: Sequence[Candidate]) -> Ranks:
        """As the fields say."""
        if self.rank is not None:
            return at_rank(matrices, self.rank)
        if self.energy is not None:
            return by_energy(matrices, self.energy)
        keep = self.keep or 0.5
        return evenly(matrices, keep) if self.allot == "even" else out_of_budget(matrices, keep)


def with_table(
    model: PreTrainedModel, matrices: list[Matrix], table: nn.Embedding | None, importance: Tensor | None = None
) -> list[Matrix]:
    """The matrices and the word embeddings, where these are decomposed."""
    return matrices if table is None else [*matrices, Matrix(word_embedding_path(model), table, importance)]


def candidates(matrices: Sequence[Matrix], found: Sequence[Directions], *, relative: bool) -> list[Candidate]:
    """Sizes and energies of each, as `ranks` compares them."""
    made = []
    for matrix, spectrum in zip(matrices, found, strict=True):
        scale = (spectrum.total or 1.0) if relative else 1.0
        out, in_ = matrix.module.weight.shape
        made.append(Candidate(out, in_, (spectrum.energies / scale).cpu().numpy()))
    return made


def refuse_no_gain(ranks: Ranks, matrices: Sequence[Matrix], method: str) -> None:
    """Raises: InputError where every matrix would stay whole."""
    if any(rank is not None for rank in ranks):
        return
    shapes = [tuple(m.module.weight.shape) for m in matrices]
    most = max(Candidate(rows, columns, torch.zeros(0).numpy()).most for rows, columns in shapes)
    raise InputError(
        f"{method}: two factors of these ranks are no smaller than the whole; the largest rank that is: {most}"
    )


@torch.no_grad()
def put_(model: PreTrainedModel, matrix: Matrix, found: Directions, rank: int) -> None:
    """Put the approximation of this rank where the matrix stands."""
    module = low_rank(matrix, found, rank)
    if isinstance(module, LowRankEmbedding):
        replace_embedding_(model, module)
    else:
        replace_module_(model, matrix.path, module)
    log.debug("%s: rank %d, %.3g of %.3g energy lost", matrix.path, rank, found.lost(rank), found.total)


@torch.no_grad()
def low_rank(matrix: Matrix, found: Directions, rank: int) -> LowRankLinear | LowRankEmbedding:
    """The module of this rank; its bias makes up for the mean of what the inputs lose."""
    old = matrix.module
    if isinstance(old, nn.Embedding):
        small = LowRankEmbedding(old.num_embeddings, old.embedding_dim, rank, old.padding_idx)
        rows, back = table_factors(old.weight, found, rank)
        small.table.weight.copy_(rows)
        small.up.weight.copy_(back)
        return small
    thin = LowRankLinear(old.in_features, old.out_features, rank, bias=old.bias is not None)
    up, down = factors(old.weight, found, rank)
    thin.up.weight.copy_(up)
    thin.down.weight.copy_(down)
    if old.bias is not None:
        shift = 0.0 if matrix.mean is None else (old.weight.double() - up.double() @ down.double()) @ matrix.mean
        thin.up.bias.copy_(old.bias.double() + shift)
    return thin
