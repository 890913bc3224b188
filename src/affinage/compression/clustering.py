"""Many vectors written as few: nearest centres, or nearest directions each with a weight."""

from collections.abc import Callable

import torch
from torch import Tensor

_POINTS, _CENTRES = 512, 1024
"""whose distances are held at a time: so few that they stay in the processor's cache"""


@torch.no_grad()
def centres(points: Tensor, count: int, *, iterations: int, seed: int) -> tuple[Tensor, Tensor]:
    """(N,) int64 codes and (count, d) centres: k-means of (N, d), from points drawn without replacement.

    The sum of squared distances does not grow from round to round. A centre that nobody is nearest to stays.
    """
    found = _drawn(points, count, seed)
    for _ in range(iterations):
        found = _means(points, nearest(points, found), found)
    return nearest(points, found), found


@torch.no_grad()
def lines(points: Tensor, count: int, *, iterations: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) int64 codes, (N,) weights and (count, d) unit vectors: each point is near its weight times its direction.

    As k-means, with lines through the origin for centres: the sum of squared distances does not grow.
    """
    found = _units(_drawn(points, count, seed))
    for _ in range(iterations):
        codes, weights = _on_lines(points, found)
        # One step of the power iteration towards the main direction of the line's points.
        sums = torch.zeros_like(found).index_add_(0, codes, points * weights[:, None])
        found = torch.where(sums.norm(dim=1, keepdim=True) > 0, _units(sums), found)
    return *_on_lines(points, found), found


def nearest(points: Tensor, found: Tensor) -> Tensor:
    """(N,) int64: the centre (count, d) that each point (N, d) is nearest to."""
    squares = found.square().sum(1)
    return _least(points, found, lambda part, some: torch.addmm(squares[some], part, found[some].t(), alpha=-2))


def _on_lines(points: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    codes = _least(points, found, lambda part, some: (part @ found[some].t()).abs().neg())
    return codes, (points * found[codes]).sum(1)


def _least(points: Tensor, found: Tensor, away: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """(N,) int64: where `away` is least, the first of equals. It gives (n, m) of n points and a slice of m centres."""
    codes = []
    for part in points.split(_POINTS):
        best = points.new_full((len(part),), torch.inf)
        code = torch.zeros(len(part), dtype=torch.int64, device=points.device)
        for start in range(0, len(found), _CENTRES):
            table = away(part, slice(start, start + _CENTRES))
            least = table.amin(1)
            code = torch.where(least < best, _first_least(table) + start, code)
            best = torch.minimum(least, best)
        codes.append(code)
    return torch.cat(codes)


def _first_least(table: Tensor) -> Tensor:
    """(n,) int64: where each row of (n, m) is least, the first of equals; on a CPU by numpy, several times as fast."""
    return torch.from_numpy(table.numpy().argmin(1)) if table.device.type == "cpu" else table.argmin(1)


def _means(points: Tensor, codes: Tensor, before: Tensor) -> Tensor:
    sums = torch.zeros_like(before).index_add_(0, codes, points)
    counts = torch.bincount(codes, minlength=len(before))[:, None]
    found: Tensor = torch.where(counts > 0, sums / counts.clamp(min=1), before)
    return found


def _units(vectors: Tensor) -> Tensor:
    found: Tensor = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny)
    return found


def _drawn(points: Tensor, count: int, seed: int) -> Tensor:
    """(count, d): points drawn without replacement, so `count` is at most N."""
    random = torch.Generator().manual_seed(seed)
    return points[torch.randperm(len(points), generator=random)[:count].to(points.device)].clone()
