"""Whether two systems differ: scores over seeds and examples by the bootstrap, examples paired; exact McNemar.

A system is one or several training seeds scored on the same examples. One resample draws the examples once for every
system, so that a hard example is hard for all of them, and draws each system's seeds for itself (two-level bootstrap:
Efron and Tibshirani 1993, chapters 8 and 13; paired examples in language processing: Koehn 2004).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt
from typing import Self

import numpy as np

from affinage.errors import InputError
from affinage.evaluation.metrics import Floats, Metric

SAMPLES = 5000
LEVEL = 0.95
_BLOCK = 4_000_000  # weights drawn at a time: 32 MB whatever the number of examples


@dataclass(frozen=True)
class Estimate:
    """A figure and what it would have been on other examples and seeds."""

    value: float
    draws: Floats
    """(B,) the figure on every resample; resamples with the same index saw the same examples"""

    @property
    def interval(self) -> tuple[float, float]:
        """The middle 95 % of the draws; infinite where too many of them are."""
        low, high = np.quantile(self.draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
        return float(low), float(high)

    @property
    def p_value(self) -> float:
        """Two-sided, of the figure being 0: twice the share of draws on the other side, (count + 1) / (B + 1)."""
        beyond = min(int((self.draws <= 0).sum()), int((self.draws >= 0).sum()))
        return min(1.0, 2 * (beyond + 1) / (len(self.draws) + 1))

    def __sub__(self, other: Self) -> "Estimate":
        """The difference, resample by resample."""
        return Estimate(self.value - other.value, self.draws - other.draws)

    def over(self, other: Self) -> "Estimate | None":
        """The ratio; None where the denominator is not above 0. A draw with a denominator not above 0 is infinite."""
        if other.value <= 0:
            return None
        beyond = np.where(self.draws < 0, -np.inf, np.inf)
        return Estimate(self.value / other.value, np.divide(self.draws, other.draws, out=beyond, where=other.draws > 0))


def estimates(
    metric: Metric, systems: Sequence[Sequence[Floats]], *, samples: int = SAMPLES, seed: int = 0
) -> list[Estimate]:
    """The score of every system: the mean over its seeds, and its resamples, paired across systems.

    `systems`: for each, the statistics (n, k) of every seed on the same n examples; k may differ between seeds. The
    mean over S resampled seeds varies with (S - 1) / S of the variance it should have; deviations from the mean over
    all seeds are widened by sqrt(S / (S - 1)) to make up for that. With one seed, draws are over examples alone.

    Raises: InputError where a system has no seed, or the numbers of examples differ.
    """
    counts = {len(rows) for system in systems for rows in system}
    if len(counts) != 1 or 0 in counts or not all(systems):
        raise InputError(f"{metric.name}: systems are compared on the same examples, found {sorted(counts)} of them")
    (n,) = counts
    generator = np.random.default_rng(seed)
    scores = [np.empty((samples, len(system))) for system in systems]
    block = max(1, _BLOCK // n)
    for start in range(0, samples, block):
        size = min(block, samples - start)
        weights = generator.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
        for drawn, system in zip(scores, systems, strict=True):
            for place, rows in enumerate(system):
                drawn[start : start + size, place] = metric.aggregate(weights @ rows)
    return [
        Estimate(
            float(np.mean([metric.aggregate(rows.sum(axis=0)) for rows in system])),
            _over_seeds(drawn, np.random.default_rng([seed, index])),
        )
        for index, (drawn, system) in enumerate(zip(scores, systems, strict=True), 1)
    ]


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Exact two-sided p-value that two classifiers are right equally often, from the examples only one gets right.

    Under the null b of the N = b + c discordant examples go to the first with X ~ Binomial(N, 1/2):
    p = min(1, 2 P(X <= min(b, c))). McNemar 1947; exact form as in Dietterich 1998.
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    discordant, fewer = only_first + only_second, min(only_first, only_second)
    below = sum(comb(discordant, i) for i in range(fewer + 1))
    return min(1.0, 2 * below / int(2**discordant))


def _over_seeds(scores: Floats, generator: np.random.Generator) -> Floats:
    """(B, S) scores of every seed on every resample -> (B,) means over seeds drawn with replacement."""
    samples, seeds = scores.shape
    if seeds == 1:
        return scores[:, 0]
    chosen = generator.integers(seeds, size=(samples, seeds))
    mean = scores.mean(axis=1)
    drawn: Floats = np.take_along_axis(scores, chosen, axis=1).mean(axis=1)
    widened: Floats = mean + sqrt(seeds / (seeds - 1)) * (drawn - mean)
    return widened
