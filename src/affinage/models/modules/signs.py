"""Ternary and binary weights: -α, 0 or α; -α or α. One scale for each row, trained where the model is trained."""

import torch
from torch import Tensor, nn

from affinage.models.modules.base import Settings, register_module
from affinage.models.modules.matrix import Matrix, MatrixEmbedding, MatrixLinear
from affinage.models.modules.packing import TRITS, pack_bits, pack_trits, packed_bytes, unpack_bits, unpack_trits


class TernaryMatrix(Matrix):
    """w[n, k] = scale[n] · (code[n, k] - 1), codes 0, 1, 2, five to a byte: 1.6 bits a weight."""

    codes: Tensor
    """(rows, ⌈cols / 5⌉) uint8, packed as `pack_trits` does"""
    scale: nn.Parameter
    """(rows,) float32"""

    def __init__(self, rows: int, cols: int) -> None:
        super().__init__()
        self.rows, self.cols = rows, cols
        self.register_buffer("codes", torch.zeros(rows, -(-cols // TRITS), dtype=torch.uint8))
        self.scale = nn.Parameter(torch.ones(rows))

    def form(self) -> Settings:
        return {}

    def numbers(self) -> int:
        return self.rows * self.cols + self.rows

    def read(self, index: Tensor | None = None) -> Tensor:
        pick = slice(None) if index is None else index
        return (unpack_trits(self.codes[pick], self.cols).float() - 1) * self.scale[pick].float()[:, None]


class BinaryMatrix(Matrix):
    """w[n, k] = scale[n] · (2 · code[n, k] - 1), codes 0 and 1, eight to a byte."""

    codes: Tensor
    """(rows, ⌈cols / 8⌉) uint8, packed as `pack_bits` does"""
    scale: nn.Parameter
    """(rows,) float32"""

    def __init__(self, rows: int, cols: int) -> None:
        super().__init__()
        self.rows, self.cols = rows, cols
        self.register_buffer("codes", torch.zeros(rows, packed_bytes(cols, 1), dtype=torch.uint8))
        self.scale = nn.Parameter(torch.ones(rows))

    def form(self) -> Settings:
        return {}

    def numbers(self) -> int:
        return self.rows * self.cols + self.rows

    def read(self, index: Tensor | None = None) -> Tensor:
        pick = slice(None) if index is None else index
        return (unpack_bits(self.codes[pick], 1, self.cols).float() * 2 - 1) * self.scale[pick].float()[:, None]


@register_module("ternary-linear")
class TernaryLinear(MatrixLinear):
    """A linear map of ternary weights; activations stay float32."""

    matrix_type = TernaryMatrix


@register_module("ternary-embedding")
class TernaryEmbedding(MatrixEmbedding):
    """A table of ternary weights."""

    matrix_type = TernaryMatrix


@register_module("binary-linear")
class BinaryLinear(MatrixLinear):
    """A linear map of binary weights; activations stay float32."""

    matrix_type = BinaryMatrix


@register_module("binary-embedding")
class BinaryEmbedding(MatrixEmbedding):
    """A table of binary weights."""

    matrix_type = BinaryMatrix


def ternary(weight: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(rows, cols) -> codes in {-1, 0, 1} and (rows,) scales of the least Σ_k d_k (w_k - α t_k)², exactly.

    Hou & Kwok 2018 (LAT), eq. 6 to 9: for a scale α, t_k = sign(w_k) where |w_k| > α / 2, and for a choice of entries α
    = Σ d |w| / Σ d over them; the best choice holds the largest |w|, and is the one of the largest (Σ d |w|)² / Σ d.
    `importance` d ≥ 0, the diagonal of the loss's curvature; None: 1 everywhere (Li et al. 2016, TWN, without its
    approximation).
    """
    weight = weight.detach().float()
    d = _importance(weight, importance)
    sizes, order = weight.abs().sort(1, descending=True)
    d = d.gather(1, order)
    mass, total = (d * sizes).double().cumsum(1), d.double().cumsum(1)
    best = (mass**2 / total.clamp(min=1e-300)).argmax(1, keepdim=True)
    scale = (mass / total.clamp(min=1e-300)).gather(1, best)
    chosen = torch.zeros_like(weight, dtype=torch.bool)
    chosen.scatter_(1, order, torch.arange(weight.shape[1], device=weight.device) <= best)
    return weight.sign() * chosen, scale[:, 0].float()


def ternary_by_threshold(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, cols) -> codes in {-1, 0, 1} and (rows,) scales: |w| > Δ = 0.7 · mean |w| of the row, α their mean.

    Li et al. 2016 (TWN), eq. 6, as TernaryBERT trains with; quick enough for every step.
    """
    sizes = weight.detach().float().abs()
    chosen = sizes > 0.7 * sizes.mean(1, keepdim=True)
    scale = (sizes * chosen).sum(1) / chosen.sum(1).clamp(min=1)
    return weight.detach().float().sign() * chosen, scale


def binary(weight: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(rows, cols) -> codes in {-1, 1} and (rows,) scales of the least Σ_k d_k (w_k - α b_k)²: b = sign(w), 1 for 0,
    α = Σ d |w| / Σ d (Hou et al. 2017, LAB, proposition 3.1; d = 1: Rastegari et al. 2016, BWN).
    """
    weight = weight.detach().float()
    d = _importance(weight, importance).double()
    scale = (d * weight.abs()).sum(1) / d.sum(1)
    return torch.where(weight >= 0, 1.0, -1.0), scale.float()


def ternary_matrix(codes: Tensor, scale: Tensor) -> TernaryMatrix:
    """Of codes (rows, cols) in {-1, 0, 1} and scales (rows,)."""
    made = TernaryMatrix(*codes.shape)
    made.codes.copy_(pack_trits(codes + 1))
    made.scale.data.copy_(scale)
    return made


def binary_matrix(codes: Tensor, scale: Tensor) -> BinaryMatrix:
    """Of codes (rows, cols) in {-1, 1} and scales (rows,)."""
    made = BinaryMatrix(*codes.shape)
    made.codes.copy_(pack_bits(codes > 0, 1))
    made.scale.data.copy_(scale)
    return made


def _importance(weight: Tensor, importance: Tensor | None) -> Tensor:
    """(rows, cols): 1 in rows that nothing is known of."""
    if importance is None:
        return torch.ones_like(weight)
    known = importance.detach().float()
    return torch.where(known.sum(1, keepdim=True) > 0, known, torch.ones_like(known))
