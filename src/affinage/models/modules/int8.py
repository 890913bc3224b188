"""int8 linear maps and tables: signed weights, unsigned activations, sums in int32, as ONNX Runtime computes them.

Weights are symmetric: w ≈ scale · q, q int8 in [-127, 127], one scale for each output (each row of a table) or one for
all. Activations are quantized as a whole tensor, x ≈ scale · (q - zero_point), q in [0, 255]: `input_range` is ONNX's
DynamicQuantizeLinear, with `torch.round` (half to even), and

    y[n] = float(Σ_k (q[k] - zero_point) · codes[n, k]) · (input_scale · scale[n]) + bias[n]

is MatMulInteger and a product, or com.microsoft's MatMulIntegerToFloat or, for dynamic ranges, DynamicQuantizeMatMul,
with `codes`ᵀ as B (int8) and no zero point of its own. A table row is Gather, Cast and Mul by its scale.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as float_linear

from affinage.models.modules.base import Compressed, InputForm, Settings, register_module


def int8_scale(weight: Tensor, *, per_row: bool = True, bits: int = 8) -> Tensor:
    """(out,) or (1,) float32: largest |w| / (2^(bits - 1) - 1); 1 where all are 0. With 7 bits the int16 sums of
    processors without VNNI do not saturate.
    """
    sizes = weight.detach().float().abs()
    largest = sizes.amax(1) if per_row else sizes.amax().reshape(1)
    return torch.where(largest > 0, largest / (2 ** (bits - 1) - 1), torch.ones_like(largest))


def to_int8(weight: Tensor, scale: Tensor) -> Tensor:
    """(out, in) int8 in [-127, 127]: round(w / scale), half to even; |w - scale · q| ≤ scale / 2 inside the range."""
    return (weight.detach().float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8)


def input_range(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """() float32 scale and () float32 zero point, a whole number in [0, 255], of activations between `low` and `high`.

    0 is always in the range: scale = (high - low) / 255, zero_point = round(-low / scale); scale 1 where both are 0.
    """
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return scale, (-low / scale).round().clamp(0, 255)


@torch.no_grad()
def integer_linear(
    x: Tensor, given: tuple[Tensor, Tensor], codes: Tensor, scale: Tensor, bias: Tensor | None
) -> Tensor:
    """(…, in) float32 -> (…, out) float32: the products of integers above. `given`: scale and zero point of x."""
    input_scale, zero = given
    rows = ((x / input_scale).round() + zero).clamp(0, 255).reshape(-1, x.shape[-1])
    # torch multiplies s8 by s8: both the codes and the zero point are moved down by 128.
    sums = _product((rows - 128).to(torch.int8), codes) + (128 - zero).int() * codes.sum(1, dtype=torch.int32)
    y = sums.float() * (input_scale * scale)
    y = y if bias is None else y + bias.float()
    return y.reshape(*x.shape[:-1], len(codes))


def straight_through(y: Tensor, x: Tensor, dense: Tensor, bias: Tensor | None) -> Tensor:
    """y, with the gradient of the dense map."""
    through = float_linear(x.float(), dense, bias)
    through.data.copy_(y)
    return through


M = TypeVar("M", bound="Int8Linear")


@register_module("int8-linear")
class Int8Linear(Compressed):
    """A linear map with int8 weights that takes the range of its input from the input itself, batch by batch.

    The range is the whole tensor's, padding included, so that a text's answer depends a little on its neighbours.
    The gradient reaches the input and the bias as that of the dense map (straight through).
    """

    inputs: InputForm = "dynamic"
    codes: Tensor
    """(out, in) int8"""
    scale: Tensor
    """(out,) or (1,) float32"""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, per_channel: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features, self.per_channel = in_features, out_features, per_channel
        self.register_buffer("codes", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(out_features if per_channel else 1))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def settings(self) -> Settings:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias is not None,
            "per_channel": self.per_channel,
        }

    def dense(self) -> Tensor:
        return self.codes.float() * self.scale.float()[:, None]

    @property
    def weight(self) -> Tensor:
        """`dense`, for what reads the weight of a linear map."""
        return self.dense()

    def range_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """() scale and () zero point for an input."""
        return input_range(x.amin(), x.amax())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) float32."""
        seen = x.detach().float()
        y = integer_linear(seen, self.range_of(seen), self.codes, self.scale.float(), self.bias)
        return straight_through(y, x, self.dense(), self.bias) if torch.is_grad_enabled() else y


@register_module("int8-static-linear")
class StaticInt8Linear(Int8Linear):
    """A linear map with int8 weights whose input has a range that was measured once: QuantizeLinear with constants."""

    inputs = "static"
    input_scale: Tensor
    """() float32"""
    input_zero_point: Tensor
    """() uint8"""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, per_channel: bool = True) -> None:
        super().__init__(in_features, out_features, bias, per_channel)
        self.register_buffer("input_scale", torch.ones(()))
        self.register_buffer("input_zero_point", torch.zeros((), dtype=torch.uint8))

    def range_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.input_scale.float(), self.input_zero_point.float()


@register_module("int8-embedding")
class Int8Embedding(Compressed):
    """A table of int8 rows, each with its scale: a row is scale[id] · codes[id]."""

    codes: Tensor
    """(V, H) int8"""
    scale: Tensor
    """(V,) float32"""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.register_buffer("codes", torch.zeros(num_embeddings, embedding_dim, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(num_embeddings))

    def settings(self) -> Settings:
        padding = {} if self.padding_idx is None else {"padding_idx": self.padding_idx}
        return {"num_embeddings": self.num_embeddings, "embedding_dim": self.embedding_dim, **padding}

    def dense(self) -> Tensor:
        return self.codes.float() * self.scale.float()[:, None]

    def forward(self, ids: Tensor) -> Tensor:
        """(...) ids -> (..., H) float32."""
        return self.codes[ids].float() * self.scale[ids].float()[..., None]


def int8_linear(linear: nn.Linear, *, per_channel: bool = True, bits: int = 8) -> Int8Linear:
    """The map in int8, ranges of its input dynamic."""
    made = Int8Linear(linear.in_features, linear.out_features, linear.bias is not None, per_channel)
    return _filled(made, linear, bits)


def static_int8_linear(
    linear: nn.Linear, low: float, high: float, *, per_channel: bool = True, bits: int = 8
) -> StaticInt8Linear:
    """The map in int8 for inputs between `low` and `high`; what lies outside is cut off."""
    made = StaticInt8Linear(linear.in_features, linear.out_features, linear.bias is not None, per_channel)
    scale, zero = input_range(torch.tensor(low), torch.tensor(high))
    made.input_scale.copy_(scale)
    made.input_zero_point.copy_(zero)
    return _filled(made, linear, bits)


def int8_embedding(weight: Tensor, padding_idx: int | None = None) -> Int8Embedding:
    """A table (V, H) in int8 by rows."""
    made = Int8Embedding(weight.shape[0], weight.shape[1], padding_idx)
    made.scale.copy_(int8_scale(weight))
    made.codes.copy_(to_int8(weight, made.scale))
    return made


def _product(rows: Tensor, codes: Tensor) -> Tensor:
    """(n, in) int8 times (out, in) int8 -> (n, out) int32, exact."""
    if rows.shape[1] == 1:  # torch 2.13 leaves the result of such a product unwritten
        return rows.int() * codes.t().int()
    if rows.device.type == "cpu":
        return torch._int_mm(rows, codes.t())
    return (rows.double() @ codes.double().t()).int()  # integer kernels of GPUs take some sizes only


def _filled(made: M, linear: nn.Linear, bits: int) -> M:
    made.scale.copy_(int8_scale(linear.weight, per_row=made.per_channel, bits=bits))
    made.codes.copy_(to_int8(linear.weight, made.scale))
    if made.bias is not None:
        made.bias.data.copy_(linear.bias.detach())
    return made.eval()
