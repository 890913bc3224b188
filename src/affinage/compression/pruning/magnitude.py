"""Single weights that go because they are small: three ways of sharing the zeros out among the matrices.

See et al. 2016 (Compression of Neural Machine Translation Models via Pruning), arXiv:1606.09274, section 3.2.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.pruning.choice import Share
from affinage.compression.pruning.sparsity import (
    SPARSE,
    made_sparse,
    matrices,
    smallest_of_all,
    smallest_of_each,
)

_SOURCE = "See et al. 2016, arXiv:1606.09274, section 3.2, "


@dataclass(frozen=True)
class _Magnitude:
    sparsity: Share = 0.5
    """share of the weights that becomes zero: ⌊sparsity * n⌋ of n"""
    embeddings: bool = False
    """whether the word embeddings are pruned too, as one more matrix"""

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = SPARSE

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        found = matrices(model, embeddings=self.embeddings)
        weights = {path: module.weight.detach() for path, module in found.items()}
        return made_sparse(model, self.gone(weights))

    def gone(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """path -> bool of the weight's shape."""
        raise NotImplementedError


@compressors.register("prune-magnitude", source=_SOURCE + "class-blind")
@dataclass(frozen=True)
class PruneMagnitude(_Magnitude):
    """Sets the smallest weights to zero, of all matrices together: class-blind, See et al.'s best. Smaller, not faster.

    What stays is stored with one bit a weight for what went.
    """

    def gone(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return smallest_of_all({path: weight.abs() for path, weight in weights.items()}, self.sparsity)


@compressors.register("prune-magnitude-uniform", source=_SOURCE + "class-uniform")
@dataclass(frozen=True)
class PruneMagnitudeUniform(_Magnitude):
    """Sets the smallest weights of each matrix to zero, the same share of every one. Smaller, not faster."""

    def gone(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return smallest_of_each({path: weight.abs() for path, weight in weights.items()}, self.sparsity)


@compressors.register("prune-magnitude-distribution", source=_SOURCE + "class-distribution")
@dataclass(frozen=True)
class PruneMagnitudeDistribution(_Magnitude):
    """Sets weights to zero that are small beside their matrix's standard deviation. Smaller, not faster.

    |w| < lambda * sigma of the matrix, with the lambda that gives the share of all weights.
    """

    def gone(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        scaled = {path: weight.abs() / weight.std(correction=0).clamp(min=1e-30) for path, weight in weights.items()}
        return smallest_of_all(scaled, self.sparsity)
