"""Correlations as sums over examples: Matthews of two labellings, Pearson and Spearman of two rows of numbers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def matthews(sums: Floats) -> Floats:
    """(..., 3C) sums of (common, predicted, reference) for each class -> Matthews' coefficient, in [-1, 1].

    For two classes that of Matthews 1975; for more, Gorodkin's R_K (2004), as in scikit-learn. 0 where one side names
    one class only.
    """
    classes = sums.reshape(*sums.shape[:-1], -1, 3)
    right, predicted, reference = classes[..., 0].sum(-1), classes[..., 1], classes[..., 2]
    total = reference.sum(-1)
    top = right * total - (predicted * reference).sum(-1)
    spread = (total**2 - (predicted**2).sum(-1)) * (total**2 - (reference**2).sum(-1))
    return _divided(top, spread)


def pearson_rows(predictions: Sequence[float], references: Sequence[float]) -> Floats:
    """(n, 6): 1, x, y, x², y², xy of each example, x and y in standard deviations from their means over all examples.

    That changes no correlation, and keeps the sums exact.
    """
    x, y = _standard(predictions), _standard(references)
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)


def pearson(sums: Floats) -> Floats:
    """(..., 6) sums as of `pearson_rows` -> Pearson's r, in [-1, 1]; 0 where one side is constant."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    return _divided(n * xy - x * y, _above(n * xx - x * x, n * xx) * _above(n * yy - y * y, n * yy))


def spearman_rows(predictions: Sequence[float], references: Sequence[float]) -> Floats:
    """(n, 3): what each example adds to covariance and variances of the two rank distributions.

    u and v are mid-ranks / n (ties share theirs). cov(u, v) is the mean over pairs of examples of a product of such
    comparisons; an example's row is its own product and what it does to the ranks of the others (Hájek's projection:
    van der Vaart 1998, chapters 11 and 12). Summed over all examples this is Spearman's rho exactly; over a resample
    it is rho to first order, where ranks held fast would give too narrow an interval.
    """
    x, y = np.asarray(predictions, np.float64), np.asarray(references, np.float64)
    u, v = _mid_ranks(x), _mid_ranks(y)

    def moved(by: Floats, ranks: Floats, weights: Floats) -> Floats:
        """Mean over j of (1 where by_i < by_j, 1/2 where equal, minus rank_j) · weight_j."""
        return np.asarray(_mean_above(by, weights) - (ranks * weights).mean())

    both = u * v + moved(x, u, v) + moved(y, v, u)
    own_u = u * u + 2 * moved(x, u, u)
    own_v = v * v + 2 * moved(y, v, v)
    return np.stack([both, own_u, own_v], axis=1) - 0.25  # the mean of mid-ranks is 1/2, whatever the ties


def spearman(sums: Floats) -> Floats:
    """(..., 3) sums as of `spearman_rows` -> Spearman's rho, in [-1, 1]; 0 where one side is constant."""
    both, u, v = np.moveaxis(sums, -1, 0)
    return _divided(both, _above(u, 1.0) * _above(v, 1.0))


def _standard(values: Sequence[float]) -> Floats:
    array = np.asarray(values, np.float64)
    spread = float(array.std())
    return np.asarray((array - array.mean()) / (spread if spread > 0 else 1.0))


def _mid_ranks(values: Floats) -> Floats:
    """(n,) share of the values below each, half of those equal to it included."""
    ordered = np.sort(values)
    below, upto = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return np.asarray((below + upto) / (2 * len(values)))


def _mean_above(values: Floats, weights: Floats) -> Floats:
    """(n,) mean over all j of weight_j where value_j is above each value, half of it where they are equal."""
    order = np.argsort(values, kind="stable")
    upto = np.concatenate([[0.0], np.cumsum(weights[order])])
    left, right = (np.searchsorted(values[order], values, side) for side in ("left", "right"))
    return np.asarray((upto[-1] - (upto[left] + upto[right]) / 2) / len(values))


def _above(variance: Floats, scale: Floats | float) -> Floats:
    """The variance, 0 where it is only rounding beside `scale`."""
    return np.where(variance > 1e-9 * np.asarray(scale), variance, 0.0)


def _divided(top: Floats, square: Floats) -> Floats:
    """top / sqrt(square) within [-1, 1], 0 where the square is 0."""
    top, square = np.broadcast_arrays(top, square)
    ratio = np.divide(top, np.sqrt(square), out=np.zeros(top.shape), where=square > 0)
    return np.asarray(np.clip(ratio, -1, 1))
