"""Two small tables that stand for one: how they are fitted to it, and where tokens are placed."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affinage.compression.base import Form, Traits

Assign = Callable[[NDArray[np.float64]], NDArray[np.int64]]
"""(n, m) costs, n <= m -> (n,) distinct places, at the smallest cost together"""

_TAKES: frozenset[Form] = frozenset({"dense", "uneven", "factored", "shared", "stock-albert"})
SHARED_TABLE = Traits(paradigm="sharing", takes=_TAKES, leaves=frozenset({"shared"}))
"""What a method takes and leaves after which tokens share the vectors that their rows are made of."""
CODED_TABLE = Traits(paradigm="sharing", takes=_TAKES, leaves=frozenset({"shared", "packed-table"}))
"""The same, where integers say which vectors these are."""


def smallest_columns(rows: int, keep: float) -> int:
    """How many columns give two tables of at most the share `keep` of `rows`, as many as that allows.

    Never fewer than the √rows of the smallest pair.
    """
    least = max(1, round(rows**0.5))
    fitting = (c for c in range(int(keep * rows), least, -1) if c - (-rows // c) <= keep * rows)
    return next(fitting, least)


def fit(table: Tensor, cells: Tensor, columns: int, *, product: bool, rounds: int = 20) -> tuple[Tensor, Tensor]:
    """(R, H) and (columns, H) float64 whose sums, or products, at the tokens' cells come nearest to the table (V, H).

    Alternating least squares, dimension by dimension. Where every cell has its token the first round of sums is the
    optimum already; that of products is the first singular pair.
    """
    target = table.double()
    row, column = cells // columns, cells % columns
    rows = -(-len(table) // columns)
    size = (rows, table.shape[1])
    if product:
        right = _sums(target.abs(), column, columns) / _counts(column, columns)  # unlike means, never near 0
        right = right.clamp(min=torch.finfo(torch.float32).eps)
        for _ in range(rounds):
            other = right[column]
            left = _ratio(_sums(target * other, row, rows), _sums(other.square(), row, rows))
            other = left[row]
            right = _ratio(_sums(target * other, column, columns), _sums(other.square(), column, columns))
        length = (left.norm(dim=0) * right.norm(dim=0)).sqrt()
        return _ratio(left * length, left.norm(dim=0)), _ratio(right * length, right.norm(dim=0))
    left, right = torch.zeros(size, dtype=torch.float64), torch.zeros(columns, size[1], dtype=torch.float64)
    for _ in range(rounds):
        left = _sums(target - right[column], row, rows) / _counts(row, rows)
        right = _sums(target - left[row], column, columns) / _counts(column, columns)
    return left, right


def placed(table: Tensor, columns: int, rounds: int, assign: Assign) -> Tensor:
    """(V,) int64: a cell of its own for each token, so that tokens of a row or of a column are alike.

    They start in the order of the table's first principal direction, row by row, and within a row of the second. Then
    in turn the tables are fitted and the tokens of each row, then of each column, change places among themselves by
    `assign` (LightRNN's bipartite matching). The error never grows.
    """
    target = (table - table.mean(0)).double()
    rows = -(-len(table) // columns)
    axes = torch.linalg.eigh(target.t() @ target).eigenvectors.flip(1)[:, :2]
    scores = (target @ axes).numpy()
    cells = np.empty(len(table), dtype=np.int64)
    for i, members in enumerate(np.array_split(np.argsort(scores[:, 0], kind="stable"), rows)):
        order = members[np.argsort(scores[members, -1], kind="stable")]
        cells[order] = i * columns + np.arange(len(order))
    for _ in range(rounds):
        for by_row in (True, False):
            _rearrange_(cells, table, columns, assign, by_row=by_row)
    return torch.from_numpy(cells)


def _rearrange_(cells: NDArray[np.int64], table: Tensor, columns: int, assign: Assign, *, by_row: bool) -> None:
    """Fit the tables, then let the tokens of each row take the row's best places, or those of each column its."""
    left, right = (part.numpy() for part in fit(table, torch.from_numpy(cells), columns, product=False))
    sides, others = (left, right) if by_row else (right, left)
    where = cells // columns if by_row else cells % columns
    for i, own in enumerate(sides):
        members = np.flatnonzero(where == i)
        if len(members):
            rest = table[members].double().numpy() - own
            costs = np.square(rest).sum(1)[:, None] - 2 * rest @ others.T + np.square(others).sum(1)
            places = assign(costs)
            cells[members] = i * columns + places if by_row else places * columns + i


def _sums(values: Tensor, where: Tensor, count: int) -> Tensor:
    return torch.zeros(count, values.shape[1], dtype=values.dtype).index_add_(0, where, values)


def _counts(where: Tensor, count: int) -> Tensor:
    return torch.bincount(where, minlength=count).clamp(min=1)[:, None]


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / below.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
