"""The best approximations of a matrix at every rank, where some of its inputs count more than others."""

from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS = 8192
"""Of an embedding table, that are held in float64 at a time."""


@dataclass(frozen=True)
class Directions:
    """Of a matrix W (out, in): its best approximation of rank r is U_r U_r^T W, with U_r the first r columns of U."""

    basis: Tensor
    """(out, n) float64: U, orthonormal columns, the most important first; n = min(out, in)"""
    energies: Tensor
    """(n,) float64, not increasing: what each column adds; what ranks above r hold is lost at rank r"""

    @property
    def total(self) -> float:
        """All the energy: the error of rank 0."""
        return float(self.energies.sum())

    def lost(self, rank: int) -> float:
        """The error of rank `rank`."""
        return float(self.energies[rank:].sum())


@torch.no_grad()
def directions(weight: Tensor, importance: Tensor | None = None) -> Directions:
    """Those that minimise ||(W - W') S||_F^2 over W' of each rank (Eckart & Young 1936 for W S).

    `weight`: W (out, in). `importance`: S S^T, (in, in) or its diagonal (in,); None: all inputs count alike.

    U are the left singular vectors of W S. Truncating W S gives U_r U_r^T W S, so that W' = U_r U_r^T W whatever S is:
    it need not be inverted, and may be singular. Computed in float64 from (W S)(W S)^T, which is no larger than the
    shorter side of W.
    """
    w = weight.double()
    if w.shape[0] > w.shape[1]:
        q, r = torch.linalg.qr(w)
        within = directions(r, importance)
        return Directions(q @ within.basis, within.energies)
    if importance is None:
        return _of_gram(w @ w.t())
    weighted = w * importance.double() if importance.dim() == 1 else w @ importance.double()
    return _of_gram(weighted @ w.t())


@torch.no_grad()
def table_directions(table: Tensor, importance: Tensor | None = None) -> Directions:
    """The same for the transpose of an embedding table (V, H), of which rows count by `importance` (V,), or alike."""
    gram = torch.zeros(table.shape[1], table.shape[1], dtype=torch.float64, device=table.device)
    for start in range(0, len(table), _ROWS):
        rows = table[start : start + _ROWS].double()
        counted = rows if importance is None else rows * importance[start : start + _ROWS, None].double()
        gram += counted.t() @ rows
    return _of_gram(gram)


@torch.no_grad()
def factors(weight: Tensor, found: Directions, rank: int) -> tuple[Tensor, Tensor]:
    """(out, rank) and (rank, in) float32 whose product is the approximation of `weight` of this rank.

    Each column of the one is as long as the row of the other that it meets, which training and integers like better
    than an orthonormal factor and one with everything.
    """
    up = found.basis[:, :rank]
    down = up.t() @ weight.double()
    root = down.norm(dim=1).sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    return (up * root).float(), (down / root[:, None]).float()


@torch.no_grad()
def table_factors(table: Tensor, found: Directions, rank: int) -> tuple[Tensor, Tensor]:
    """(V, rank) and orthonormal (H, rank) float32: the smaller table, and the map back to the width."""
    up = found.basis[:, :rank]
    parts = [table[start : start + _ROWS].double() @ up for start in range(0, len(table), _ROWS)]
    return torch.cat(parts).float(), up.float()


def _of_gram(gram: Tensor) -> Directions:
    values, vectors = torch.linalg.eigh((gram + gram.t()) / 2)
    return Directions(vectors.flip(1), values.flip(0).clamp(min=0))
