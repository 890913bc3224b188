"""SVD where a weight counts as much as the task's loss depends on it: FWSVD."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, compressors
from affinage.compression.decomposition.low_rank import LowRank, Matrix, with_table
from affinage.compression.decomposition.statistics import fisher
from affinage.models.replacing import word_embedding_path

_FLOOR = 1e-3
"""Of the mean importance, that an input keeps which no calibration text depends on."""


@compressors.register("fisher-svd", source="Hsu et al. 2022 (FWSVD), arXiv:2207.00112, eq. 3 to 6")
@dataclass(frozen=True)
class FisherSVD(LowRank):
    """FWSVD: a truncated SVD in which each input of a map, each row of a table, counts by its Fisher information.

    An input's information is the sum over the weights that it meets (the rows of W in the paper's Z = X W). Ranks as
    of `svd`; with `allot=energy` they go where they save most Fisher-weighted error, an estimate of the loss itself.
    """

    name: ClassVar[str] = "fisher-svd"
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    relative: ClassVar[bool] = False

    def matrices(
        self, model: PreTrainedModel, maps: Mapping[str, nn.Linear], table: nn.Embedding | None, resources: Resources
    ) -> list[Matrix]:
        weights = {path: module.weight for path, module in maps.items()}
        if table is not None:
            weights[word_embedding_path(model)] = table.weight
        found = fisher(model, weights, resources, method=self.name)
        matrices = [Matrix(path, module, _floored(found[path].sum(0))) for path, module in maps.items()]
        rows = None if table is None else _floored(found[word_embedding_path(model)].sum(1))
        return with_table(model, matrices, table, rows)


def _floored(information: Tensor) -> Tensor:
    """(n,) with at least a little of the mean: what calibration did not touch may still be met."""
    mean = information.mean()
    return information.clamp(min=float(_FLOOR * mean)) if mean > 0 else torch.ones_like(information)
