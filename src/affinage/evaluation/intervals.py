"""How sure a score is: the percentile bootstrap over examples (Efron and Tibshirani 1993, chapter 13)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from affinage.evaluation.metrics import Floats, Metric

_BLOCK = 4_000_000  # weights drawn at a time: 32 MB whatever the number of examples


def bootstrap_interval(
    metric: Metric,
    predictions: Sequence[Any],
    references: Sequence[Any],
    *,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """The interval that holds the middle `level` of the scores of `samples` resamples of the examples.

    Says what another test set of the same size and source would change, not what another training seed would.
    The same seed gives the same interval. One example gives an interval of width 0, which means nothing.
    """
    scores = resampled_scores(metric, metric.rows(predictions, references), samples=samples, seed=seed)
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled_scores(metric: Metric, rows: Floats, *, samples: int, seed: int) -> Floats:
    """(samples,) scores of resamples with replacement of the statistics (n, k) of n examples."""
    generator = np.random.default_rng(seed)
    n = len(rows)
    block = max(1, _BLOCK // n)
    chances = np.full(n, 1 / n)
    sums = [
        generator.multinomial(n, chances, size=min(block, samples - done)).astype(np.float64) @ rows
        for done in range(0, samples, block)
    ]
    return metric.aggregate(np.concatenate(sums))
