"""Low-rank factors against NumPy's singular values, and the promises of the papers that they come from."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from affinage.compression.decomposition.directions import directions, factors, table_directions, table_factors
from affinage.compression.decomposition.low_rank import Matrix, low_rank
from affinage.compression.decomposition.ranks import Candidate, at_rank, by_energy, cheapest, evenly, out_of_budget

SHAPES = [(12, 7), (7, 12), (9, 9)]


def matrix(shape: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(size: int, count: int = 40, seed: int = 1) -> Tensor:
    """(count, size) with a mean of its own and directions of very unlike size."""
    return matrix((count, size), seed) * torch.logspace(1, -2, size) + torch.linspace(-2, 2, size)


def error(weight: Tensor, rank: int, importance: Tensor | None, root: NDArray[np.float64]) -> float:
    """||(W - W') S||_F^2 in NumPy."""
    up, down = factors(weight, directions(weight, importance), rank)
    difference = weight.double().numpy() - (up.double() @ down.double()).numpy()
    return float(np.square(difference @ root).sum())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_is_the_discarded_energy_and_does_not_grow_with_the_rank(shape: tuple[int, int]) -> None:
    weight = matrix(shape)
    values = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    found = directions(weight)
    assert np.allclose(found.energies.numpy(), values**2, atol=1e-9)
    errors = [error(weight, r, None, np.eye(shape[1])) for r in range(min(shape) + 1)]
    assert np.allclose(errors, [(values[r:] ** 2).sum() for r in range(min(shape) + 1)], atol=1e-9)
    assert all(later <= earlier for earlier, later in pairwise(errors))
    assert errors[-1] < 1e-9 < errors[-2]


@pytest.mark.parametrize("shape", SHAPES)
def test_weighted_the_error_is_that_of_the_truncated_whitened_matrix(shape: tuple[int, int]) -> None:
    weight = matrix(shape)
    x = inputs(shape[1])
    root = np.linalg.cholesky(np.cov(x.double().numpy().T, bias=True))
    values = np.linalg.svd(weight.double().numpy() @ root, compute_uv=False)
    covariance = torch.from_numpy(root @ root.T)
    for rank in range(1, min(shape)):
        found = error(weight, rank, covariance, root)
        assert found == pytest.approx(float((values[rank:] ** 2).sum()), rel=1e-5)
        assert found < error(weight, rank, None, root)


def test_a_diagonal_counts_as_the_matrix_with_that_diagonal() -> None:
    weight, diagonal = matrix((6, 8)), torch.linspace(0.1, 3, 8)
    assert torch.allclose(directions(weight, diagonal).energies, directions(weight, diagonal.diag()).energies)


def test_inputs_that_never_come_need_no_inverse() -> None:
    weight = matrix((6, 8))
    seen = torch.zeros(8, 8)
    seen[:3, :3] = torch.eye(3)
    up, down = factors(weight, directions(weight, seen), 3)
    assert torch.allclose((up @ down)[:, :3], weight[:, :3], atol=1e-5)
    assert (up @ down).isfinite().all()


@pytest.mark.parametrize("weighted", [False, True])
def test_a_table_is_projected_on_the_directions_that_its_rows_use_most(weighted: bool) -> None:
    table = matrix((30, 6)) * torch.logspace(0, 1, 6)
    counts = torch.linspace(1, 50, 30).double() if weighted else None
    found = table_directions(table, counts)
    root = np.ones(30) if counts is None else np.sqrt(counts.numpy())
    values = np.linalg.svd(root[:, None] * table.double().numpy(), compute_uv=False)
    for rank in (1, 3, 6):
        rows, up = table_factors(table, found, rank)
        lost = np.square(root[:, None] * (table - rows @ up.t()).double().numpy()).sum()
        assert lost == pytest.approx((values[rank:] ** 2).sum(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_with_the_inputs_moments_outputs_on_calibration_are_never_worse_than_plain(rank: int) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 6), inputs(8)
    mean, covariance = x.double().mean(0), torch.from_numpy(np.cov(x.double().numpy().T, bias=True))
    plain = Matrix("plain", layer)
    aware = Matrix("aware", layer, covariance, mean)
    with torch.no_grad():
        wanted = layer(x)
        lost = {m.path: float((low_rank(m, m.found, rank)(x) - wanted).square().sum()) for m in (plain, aware)}
    assert lost["aware"] < lost["plain"]
    assert lost["aware"] == pytest.approx(aware.found.lost(rank) * len(x), rel=1e-3)


def test_the_factors_share_their_length() -> None:
    up, down = factors(matrix((7, 12)), directions(matrix((7, 12))), 4)
    assert torch.allclose(up.norm(dim=0), down.norm(dim=1))


def candidate(out: int, in_: int, *energies: float) -> Candidate:
    return Candidate(out, in_, np.array(energies))


def test_ranks_that_are_no_smaller_than_the_whole_leave_it() -> None:
    square = candidate(10, 10, *[1.0] * 10)
    assert square.most == 4  # 5 · 20 is the whole
    assert [at_rank([square], r)[0] for r in (4, 5)] == [4, None]
    assert by_energy([square], 0.4) == [4] and by_energy([square], 0.41) == [None]
    assert evenly([square], 0.5) == [2] and evenly([square], 0.01) == [1]


def test_energy_asks_for_the_smallest_rank_that_keeps_it() -> None:
    assert by_energy([candidate(20, 20, 6, 3, 1)], 0.9) == [2]
    assert by_energy([candidate(20, 20, 6, 3, 1)], 0.6) == [1]


def test_a_budget_goes_where_it_brings_most() -> None:
    sharp, flat = candidate(10, 10, 9, 0.5, 0.25, 0.125, 0.0625), candidate(10, 10, 3, 3, 3, 3, 3)
    assert out_of_budget([sharp, flat], 0.5) == [1, 4]
    assert out_of_budget([sharp, flat], 0.6) == [1, None]
    assert out_of_budget([sharp, flat], 0.01) == [1, 1]


def test_the_best_choice_within_a_budget_is_that_of_trying_all() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        costs = [[int(c) for c in np.sort(rng.integers(1, 50, 4))] for _ in range(4)]
        losses = [[float(v) for v in -np.sort(-rng.random(4))] for _ in range(4)]
        budget = 100
        picks = cheapest(costs, losses, budget, bins=budget)
        every = np.stack(np.meshgrid(*[range(4)] * 4), -1).reshape(-1, 4)
        spent = np.array([sum(costs[i][k] for i, k in enumerate(row)) for row in every])
        lost = np.array([sum(losses[i][k] for i, k in enumerate(row)) for row in every])
        assert sum(costs[i][k] for i, k in enumerate(picks)) <= budget
        assert sum(losses[i][k] for i, k in enumerate(picks)) == pytest.approx(lost[spent <= budget].min())
    assert cheapest([[5, 9]], [[1.0, 0.0]], 3) == [0]
