"""Weights of 2 to 8 bits in groups along the input, each group with its scale and zero point.

The layout is that of com.microsoft's MatMulNBits (B, scales, zero_points; block_size = group) and, for tables, of
GatherBlockQuantized: w[n, k] ≈ scale[n, g] · (code[n, k] - zero_point[n, g]), g = k div group.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from affinage.models.modules.base import Settings, register_module
from affinage.models.modules.matrix import Matrix, MatrixEmbedding, MatrixLinear
from affinage.models.modules.packing import pack_bits, packed_bytes, unpack_bits


class GroupMatrix(Matrix):
    """A matrix of `bits`-bit codes; rows are filled up to whole groups with zero points."""

    codes: Tensor
    """(rows, groups · group · bits / 8) uint8, packed as `pack_bits` does"""
    scale: Tensor
    """(rows, groups) float16"""
    zero_points: Tensor
    """(rows, ⌈groups · bits / 8⌉) uint8, packed as `pack_bits` does"""

    def __init__(self, rows: int, cols: int, bits: int = 4, group: int = 64) -> None:
        super().__init__()
        self.rows, self.cols, self.bits, self.group = rows, cols, bits, group
        self.groups = -(-cols // group)
        width = packed_bytes(self.groups * group, bits)
        self.register_buffer("codes", torch.zeros(rows, width, dtype=torch.uint8))
        self.register_buffer("scale", torch.ones(rows, self.groups, dtype=torch.float16))
        self.register_buffer("zero_points", torch.zeros(rows, packed_bytes(self.groups, bits), dtype=torch.uint8))

    def form(self) -> Settings:
        return {"bits": self.bits, "group": self.group}

    def numbers(self) -> int:
        return self.rows * self.cols + 2 * self.rows * self.groups

    def read(self, index: Tensor | None = None) -> Tensor:
        pick = slice(None) if index is None else index
        codes = unpack_bits(self.codes[pick], self.bits, self.groups * self.group)
        zeros = unpack_bits(self.zero_points[pick], self.bits, self.groups)
        steps = codes.unflatten(1, (self.groups, self.group)).float() - zeros[:, :, None].float()
        matrix: Tensor = (steps * self.scale[pick].float()[:, :, None]).flatten(1)[:, : self.cols]
        return matrix


@register_module("group-linear")
class GroupLinear(MatrixLinear):
    """A linear map of few-bit weights; activations stay float32."""

    matrix_type = GroupMatrix


@register_module("group-embedding")
class GroupEmbedding(MatrixEmbedding):
    """A table of few-bit weights."""

    matrix_type = GroupMatrix


def group_scale(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(…, group) -> (…) float16 scale and (…) float32 zero point, a whole number in [0, 2^bits).

    0 is always in the range: scale = (high - low) / (2^bits - 1), rounded up to float16, zero_point = round(-low /
    scale), so that |w - scale · (code - zero_point)| ≤ scale / 2; scale 1 where all are 0.
    """
    low, high = values.amin(-1).clamp(max=0), values.amax(-1).clamp(min=0)
    # Up: float16 is within 2^-11 of what it rounds, and below 6e-5 within 6e-8.
    scale = ((high - low) / (2**bits - 1) * (1 + 2**-10) + 6e-8 * (high > low)).half()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return scale, (-low / scale.float()).round().clamp(0, 2**bits - 1)


def group_codes(values: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """(…, group) -> (…, group) float32 whole numbers in [0, 2^bits): round(w / scale) + zero point, half to even."""
    return ((values / scale.float()[..., None]).round() + zero[..., None]).clamp(0, 2**bits - 1)


def fitting_group(group: int, cols: int) -> int:
    """`group`, or the largest smaller power of two, 16 at least, that pads a row of `cols` by less than a half."""
    while group > 16 and group // 2 >= cols:
        group //= 2
    return group


def group_matrix(weight: Tensor, bits: int, group: int = 64) -> GroupMatrix:
    """The matrix in `bits` bits."""
    rows, cols = weight.shape
    made = GroupMatrix(rows, cols, bits, fitting_group(group, cols))
    values = pad(weight.detach().float(), (0, made.groups * made.group - cols)).unflatten(1, (-1, made.group))
    scale, zero = group_scale(values, bits)
    codes = group_codes(values, scale, zero, bits)
    made.scale.copy_(scale)
    made.zero_points.copy_(pack_bits(zero, bits))
    made.codes.copy_(pack_bits(codes.flatten(1), bits))
    return made
