"""SVD where an error counts as much as the inputs that it meets make of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, compressors
from affinage.compression.decomposition.low_rank import LowRank, Matrix, with_table
from affinage.compression.decomposition.statistics import calibration, input_moments, token_counts


@compressors.register(
    "activation-svd", source="Chen et al. 2021 (DRONE); Wang et al. 2024 (SVD-LLM), arXiv:2403.07378, section 3.1"
)
@dataclass(frozen=True)
class ActivationSVD(LowRank):
    """Truncated SVD in whitened inputs: each map's outputs on calibration text change least, in squares.

    Inputs are taken around their mean, for whose error the bias makes up. Rows of a table count by how often their
    token stands in the text, plus one. Ranks as of `svd`.
    """

    name: ClassVar[str] = "activation-svd"
    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def matrices(
        self, model: PreTrainedModel, maps: Mapping[str, nn.Linear], table: nn.Embedding | None, resources: Resources
    ) -> list[Matrix]:
        return whitened(model, maps, table, resources, method=self.name)


def whitened(
    model: PreTrainedModel,
    maps: Mapping[str, nn.Linear],
    table: nn.Embedding | None,
    resources: Resources,
    *,
    method: str,
) -> list[Matrix]:
    """The matrices with the moments of their inputs on calibration text."""
    batches = calibration(resources, method)
    found = input_moments(model, maps, batches, method=method)
    matrices = []
    for path, module in maps.items():
        moments = found[path]
        if module.bias is None:
            matrices.append(Matrix(path, module, moments.second))  # type: ignore[unreachable]  # torch's types know no map without
        else:
            matrices.append(Matrix(path, module, moments.covariance, moments.mean))
    rows = None if table is None else token_counts(batches, table.num_embeddings)
    return with_table(model, matrices, table, rows)
