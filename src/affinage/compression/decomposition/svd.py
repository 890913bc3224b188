"""Truncated singular value decomposition of linear maps and embeddings, from the weights alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, compressors
from affinage.compression.decomposition.low_rank import LowRank, Matrix, with_table


@compressors.register("svd", source="Eckart & Young 1936; Prabhavalkar et al. 2016, arXiv:1603.08042")
@dataclass(frozen=True)
class SVD(LowRank):
    """Truncated SVD: each map becomes two thin ones, nearest to it in the sum of squared weights.

    The rank is `rank`; or the smallest that keeps the share `energy` of the squared weights; or what leaves the share
    `keep` of the parameters: of each map (`allot=even`), or of all together, given to ranks by the energy that they
    add to their map (`allot=energy`). A map whose factors would be no smaller stays as it is.
    """

    name: ClassVar[str] = "svd"

    def matrices(
        self, model: PreTrainedModel, maps: Mapping[str, nn.Linear], table: nn.Embedding | None, resources: Resources
    ) -> list[Matrix]:
        return with_table(model, [Matrix(path, module) for path, module in maps.items()], table)
