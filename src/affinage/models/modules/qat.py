"""Modules under quantization-aware training: float weights that compute as they will when they are packed.

Rounding lets the gradient through as if it were not there (straight-through estimator, Bengio et al. 2013).
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as float_linear
from torch.nn.functional import pad

from affinage.models.modules.base import Compressed, InputForm, Settings, register_module
from affinage.models.modules.groups import (
    GroupEmbedding,
    GroupLinear,
    fitting_group,
    group_codes,
    group_matrix,
    group_scale,
)
from affinage.models.modules.int8 import (
    input_range,
    int8_embedding,
    int8_linear,
    int8_scale,
    static_int8_linear,
    to_int8,
)
from affinage.models.modules.matrix import Matrix, packed_embedding, packed_linear
from affinage.models.modules.signs import (
    BinaryEmbedding,
    BinaryLinear,
    TernaryEmbedding,
    TernaryLinear,
    binary,
    binary_matrix,
    ternary_by_threshold,
    ternary_matrix,
)

WeightForm = Literal["int8", "int4", "ternary", "binary"]
DECAY = 0.99
"""of the moving average (Jacob et al. 2018, section 3.1)"""
GROUP = 64


def _int8(weight: Tensor) -> Tensor:
    scale = int8_scale(weight)
    return to_int8(weight, scale).float() * scale[:, None]


def _int4(weight: Tensor) -> Tensor:
    cols = weight.shape[1]
    group = fitting_group(GROUP, cols)
    values = pad(weight.float(), (0, -cols % group)).unflatten(1, (-1, group))
    scale, zero = group_scale(values, 4)
    steps = group_codes(values, scale, zero, 4) - zero[:, :, None]
    return (steps * scale.float()[:, :, None]).flatten(1)[:, :cols]


def _ternary(weight: Tensor) -> Tensor:
    codes, scale = ternary_by_threshold(weight)
    return codes * scale[:, None]


def _binary(weight: Tensor) -> Tensor:
    codes, scale = binary(weight)
    return codes * scale[:, None]


ROUNDED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "int8": _int8,
    "int4": _int4,
    "ternary": _ternary,
    "binary": _binary,
}
"""(rows, cols) -> (rows, cols): what the packed form stands for"""


def through(value: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient of `value`."""
    return value + (rounded - value).detach()


@register_module("qat-linear")
class QatLinear(Compressed):
    """A linear map of float weights that is computed with what they are rounded to."""

    low: Tensor
    """() float32: moving average of the least input; used where inputs are static"""
    high: Tensor
    """() float32: of the greatest"""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        weights: WeightForm = "int8",
        inputs: InputForm = "static",
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.weights, self.inputs = in_features, out_features, weights, inputs
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def settings(self) -> Settings:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias is not None,
            "weights": self.weights,
            "inputs": self.inputs,
        }

    def dense(self) -> Tensor:
        return through(self.weight, ROUNDED[self.weights](self.weight.detach()))

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return float_linear(x if self.inputs == "float" else self._rounded_input(x), self.dense(), self.bias)

    def _rounded_input(self, x: Tensor) -> Tensor:
        seen = x.detach().float()
        low, high = seen.amin(), seen.amax()
        if self.inputs == "static":
            if self.training:
                self.low.lerp_(low, 1 - DECAY)
                self.high.lerp_(high, 1 - DECAY)
            low, high = self.low, self.high
        scale, zero = input_range(low, high)
        inside = x.clamp(float(-zero * scale), float((255 - zero) * scale))
        return through(inside, (((seen / scale).round() + zero).clamp(0, 255) - zero) * scale)

    def packed(self) -> Compressed:
        """The module that computes the same from packed weights."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        plain.weight, plain.bias = self.weight, self.bias  # type: ignore[assignment]
        if self.weights == "int8":
            static = self.inputs == "static"
            return static_int8_linear(plain, float(self.low), float(self.high)) if static else int8_linear(plain)
        assert self.inputs != "static"  # which few-bit maps do not take
        inputs = self.inputs
        if self.weights == "int4":
            return packed_linear(GroupLinear, plain, _matrix(self.weight, "int4"), inputs)
        kind = TernaryLinear if self.weights == "ternary" else BinaryLinear
        return packed_linear(kind, plain, _matrix(self.weight, self.weights), inputs)


@register_module("qat-embedding")
class QatEmbedding(Compressed):
    """A table of float rows that gives what they are rounded to."""

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, weights: WeightForm = "int8"
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.weights = weights
        self.weight = nn.Parameter(torch.zeros(num_embeddings, embedding_dim))

    def settings(self) -> Settings:
        padding = {} if self.padding_idx is None else {"padding_idx": self.padding_idx}
        sizes = {"num_embeddings": self.num_embeddings, "embedding_dim": self.embedding_dim}
        return {**sizes, **padding, "weights": self.weights}

    def dense(self) -> Tensor:
        return through(self.weight, ROUNDED[self.weights](self.weight.detach()))

    def forward(self, ids: Tensor) -> Tensor:
        """(…) ids -> (…, H)."""
        rows = nn.functional.embedding(ids.reshape(-1), self.weight, self.padding_idx)
        # Every form is made row by row, so that the rows that are asked for are enough.
        return through(rows, ROUNDED[self.weights](rows.detach())).reshape(*ids.shape, self.embedding_dim)

    def packed(self) -> Compressed:
        """The module that gives the same from packed rows."""
        if self.weights == "int8":
            return int8_embedding(self.weight, self.padding_idx)
        plain = nn.Embedding(self.num_embeddings, self.embedding_dim, self.padding_idx, device="meta")
        kinds = {"int4": GroupEmbedding, "ternary": TernaryEmbedding, "binary": BinaryEmbedding}
        return packed_embedding(kinds[self.weights], plain, _matrix(self.weight, self.weights))


def _matrix(weight: Tensor, form: WeightForm) -> Matrix:
    if form == "int4":
        return group_matrix(weight, 4, GROUP)
    if form == "ternary":
        return ternary_matrix(*ternary_by_threshold(weight))
    return binary_matrix(*binary(weight))
