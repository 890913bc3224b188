"""At which rank each matrix is approximated: one that is given, by the energy that is kept, or out of a budget."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Candidate:
    """A matrix (out, in) that may become two, and the energy that each rank adds."""

    out: int
    in_: int
    energies: NDArray[np.float64]
    """(n,) not increasing"""

    @property
    def size(self) -> int:
        """Parameters of the whole matrix."""
        return self.out * self.in_

    @property
    def step(self) -> int:
        """Parameters that one more rank costs."""
        return self.out + self.in_

    @property
    def most(self) -> int:
        """The largest rank that is smaller than the whole; 0 where none is."""
        return (self.size - 1) // self.step

    def cost(self, rank: int | None) -> int:
        """Parameters at a rank; None: whole."""
        return self.size if rank is None else rank * self.step


Ranks = list[int | None]
"""One for each matrix; None: it stays whole"""


def at_rank(matrices: Sequence[Candidate], rank: int) -> Ranks:
    """The same for all, where that is smaller than the whole."""
    return [rank if rank <= m.most else None for m in matrices]


def by_energy(matrices: Sequence[Candidate], share: float) -> Ranks:
    """The smallest rank of each that keeps this share of its energy, where that is smaller than the whole."""
    found: Ranks = []
    for m in matrices:
        kept = np.cumsum(m.energies)
        rank = int(np.searchsorted(kept, share * kept[-1] * (1 - 1e-12))) + 1
        found.append(rank if rank <= m.most else None)
    return found


def evenly(matrices: Sequence[Candidate], keep: float) -> Ranks:
    """The largest rank of each that leaves at most the share `keep` of its parameters, at least 1."""
    return [max(1, int(keep * m.size) // m.step) if m.most else None for m in matrices]


def out_of_budget(matrices: Sequence[Candidate], keep: float) -> Ranks:
    """Ranks, at least 1, that leave at most the share `keep` of all parameters and lose the least energy together.

    Each parameter is spent where it brings most: as a matrix's energies do not increase, taking the best next rank of
    all until the budget is spent is optimal but for what the last rank leaves over. From the largest rank on a matrix
    is made whole, which costs no more than another rank.
    """
    budget = keep * sum(m.size for m in matrices)
    ranks: Ranks = [1 if m.most else None for m in matrices]
    spent = sum(m.cost(rank) for m, rank in zip(matrices, ranks, strict=True))
    ties = count()

    def offer(i: int) -> None:
        m, rank = matrices[i], ranks[i]
        if rank is None:
            return
        whole = rank == m.most
        gain = float(m.energies[rank:].sum() if whole else m.energies[rank])
        price = m.size - m.cost(rank) if whole else m.step
        heapq.heappush(heap, (-gain / price, next(ties), i, price))

    heap: list[tuple[float, int, int, int]] = []
    for i in range(len(matrices)):
        offer(i)
    while heap:
        _, _, i, price = heapq.heappop(heap)
        if spent + price > budget:
            continue
        spent += price
        rank = ranks[i]
        assert rank is not None
        ranks[i] = None if rank == matrices[i].most else rank + 1
        offer(i)
    return ranks


def cheapest(
    costs: Sequence[Sequence[int]], losses: Sequence[Sequence[float]], budget: int, *, bins: int = 2000
) -> list[int]:
    """The choice of each matrix with the smallest sum of losses within the budget.

    `costs`, `losses`: of the choices of each matrix. Dynamic programming over the budget in `bins` parts, costs rounded
    up: what is chosen is within the budget, and the best but for the rounding. Where nothing fits, the smallest of all.
    """
    unit = max(1, budget // bins)
    room = budget // unit
    best = np.zeros(room + 1)
    picks: list[NDArray[np.int64]] = []
    for prices, lost in zip(costs, losses, strict=True):
        table = np.full((len(prices), room + 1), np.inf)
        for k, (price, loss) in enumerate(zip(prices, lost, strict=True)):
            needed = -(-price // unit)
            if needed <= room:
                table[k, needed:] = best[: room + 1 - needed] + loss
        picks.append(table.argmin(axis=0))
        best = table.min(axis=0)
    if not np.isfinite(best[room]):
        return [int(np.argmin(prices)) for prices in costs]
    chosen: list[int] = []
    left = room
    for prices, pick in zip(reversed(costs), reversed(picks), strict=True):
        k = int(pick[left])
        chosen.append(k)
        left -= -(-prices[k] // unit)
    return chosen[::-1]
