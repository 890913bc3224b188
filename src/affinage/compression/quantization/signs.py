"""Ternary and binary weights without training, with scales that weigh each weight by what the loss makes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.pruning.sparsity import with_zeros
from affinage.compression.quantization.curvature import gradient_sizes
from affinage.compression.quantization.places import LEAVES, TAKES, FewBits, quantized
from affinage.models.modules.matrix import (
    Matrix,
    MatrixEmbedding,
    MatrixLinear,
    packed_embedding,
    packed_linear,
)
from affinage.models.modules.signs import (
    BinaryEmbedding,
    BinaryLinear,
    TernaryEmbedding,
    TernaryLinear,
    binary,
    binary_matrix,
    ternary,
    ternary_matrix,
)


@dataclass(frozen=True, kw_only=True)
class _LossAware(FewBits):
    """Weights of a few signs and a scale for each row, of the least Σ d (w - α t)², d the loss's curvature."""

    method: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "gradients"})

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        model = with_zeros(model)  # derivatives are taken by a weight that is a parameter
        paths = [*self.linears(model), *self.tables(model)]
        weights = [model.get_parameter(f"{path}.weight") for path in paths]
        sizes = gradient_sizes(model, weights, resources.calibration, resources.loss)
        curvature = dict(zip(paths, sizes, strict=True))
        linear_type, table_type, matrix = self.form()
        return quantized(
            model,
            self,
            lambda path, linear: packed_linear(
                linear_type, linear, matrix(linear.weight, curvature[path]), self.activations
            ),
            lambda path, table: packed_embedding(table_type, table, matrix(table.weight, curvature[path])),
            method=self.method,
        )

    def form(self) -> tuple[type[MatrixLinear], type[MatrixEmbedding], Callable[[Tensor, Tensor], Matrix]]:
        """The two modules, and the matrix of a weight and its curvature."""
        raise NotImplementedError


@compressors.register(
    "ternary", source="Hou & Kwok 2018 (LAT), arXiv:1802.08635, proposition 3.2, exact; scales by rows"
)
@dataclass(frozen=True, kw_only=True)
class Ternary(_LossAware):
    """Weights of -α, 0 and α, 1.6 bits each. Smaller; wants recovery training, or `qat-ternary` instead."""

    method: ClassVar[str] = "ternary"
    traits: ClassVar[Traits] = Traits("quantization", TAKES, LEAVES)

    def form(self) -> tuple[type[MatrixLinear], type[MatrixEmbedding], Callable[[Tensor, Tensor], Matrix]]:
        return TernaryLinear, TernaryEmbedding, lambda weight, d: ternary_matrix(*ternary(weight, d))


@compressors.register("binary", source="Hou et al. 2017 (LAB), arXiv:1611.01600, proposition 3.1; scales by rows")
@dataclass(frozen=True, kw_only=True)
class Binary(_LossAware):
    """Weights of -α and α, 1 bit each. Smaller; wants recovery training, or `qat-binary` instead."""

    method: ClassVar[str] = "binary"
    traits: ClassVar[Traits] = Traits("quantization", TAKES - {"sparse"}, LEAVES)

    def form(self) -> tuple[type[MatrixLinear], type[MatrixEmbedding], Callable[[Tensor, Tensor], Matrix]]:
        return BinaryLinear, BinaryEmbedding, lambda weight, d: binary_matrix(*binary(weight, d))
