"""k-means: of single numbers, and of vectors."""

import torch
from torch import Tensor

from affinage.compression.clustering import nearest


def cluster_numbers(values: Tensor, entries: int, *, steps: int = 50) -> tuple[Tensor, Tensor]:
    """(n,) -> (n,) int64 codes and (entries,) float32 centres, ascending: Lloyd's algorithm from evenly spaced centres.

    Even spacing between the extremes keeps the few large weights near a centre (Han et al. 2015, section 3.2). A centre
    that no value is nearest to stays where it is.
    """
    flat = values.detach().double().sort().values
    sums = torch.cat([flat.new_zeros(1), flat.cumsum(0)])
    centres = torch.linspace(0, 1, entries, dtype=torch.float64, device=flat.device) * (flat[-1] - flat[0]) + flat[0]
    for _ in range(steps):
        cuts = torch.searchsorted(flat, (centres[1:] + centres[:-1]) / 2, right=True)
        ends = torch.cat([cuts.new_zeros(1), cuts, cuts.new_tensor([len(flat)])])
        held = ends.diff()
        moved = torch.where(held > 0, sums[ends].diff() / held.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    found = centres.float()
    return torch.bucketize(values.detach().float(), (found[1:] + found[:-1]) / 2), found


def cluster_vectors(vectors: Tensor, entries: int, *, seed: int, steps: int = 25) -> tuple[Tensor, Tensor]:
    """(n, width) -> (n,) int64 codes and (entries, width) float32 centres: Lloyd's algorithm, started by k-means++.

    A centre that lost all its vectors is put on the one that is farthest from its own.
    """
    points = vectors.detach().float()
    centres = _spread(points, entries, seed)
    codes, far = _nearest(points, centres)
    for _ in range(steps):
        held = torch.bincount(codes, minlength=entries)
        sums = torch.zeros_like(centres).index_add_(0, codes, points)
        centres = sums / held.clamp(min=1)[:, None]
        empty = (held == 0).nonzero()[:, 0]
        if len(empty):
            centres[empty] = points[far.topk(len(empty)).indices]
        before = codes
        codes, far = _nearest(points, centres)
        if torch.equal(before, codes):
            break
    return codes, centres


def _spread(points: Tensor, entries: int, seed: int) -> Tensor:
    """(entries, width): points drawn one after another with odds of their squared distance to those drawn before."""
    generator = torch.Generator(device=points.device).manual_seed(seed)
    draws = torch.rand(entries, dtype=torch.float64, generator=generator, device=points.device)
    chosen = [int(draws[0] * len(points))]
    far = (points - points[chosen[0]]).square().sum(1)
    for draw in draws[1:]:
        odds = far.double().cumsum(0)
        chosen.append(min(int(torch.searchsorted(odds, draw * odds[-1], right=True)), len(points) - 1))
        far = torch.minimum(far, (points - points[chosen[-1]]).square().sum(1))
    return points[chosen]


def _nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) number of the nearest centre, the first of equals, and (n,) squared distance to it."""
    codes = nearest(points, centres)
    return codes, (points - centres[codes]).square().sum(1)
