"""From which margin on a question is taken to have no answer: the threshold that scores highest."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def best_threshold(margins: Floats, answered: Floats, unanswered: Floats) -> float:
    """The t that makes the sum highest, of each question `unanswered` where its margin is above t, else `answered`.

    All (n,): score of "no answer" - score of the best span, and what a question scores either way. Halfway between two
    margins, and of thresholds equally good the one nearest to 0. As `find_best_thresh` of SQuAD's script, on a margin
    in logits in place of a probability.
    """
    order = np.argsort(margins, kind="stable")
    ordered = margins[order]
    # sums[k]: the k lowest margins answered, the others not.
    gains = np.concatenate([[0.0], np.cumsum(answered[order] - unanswered[order])])
    sums = unanswered.sum() + gains
    finite = np.clip(np.nan_to_num(ordered, posinf=np.inf), -1e4, 1e4)
    borders = np.concatenate([[finite[0] - 1], (finite[:-1] + finite[1:]) / 2, [finite[-1] + 1]])
    apart = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])  # no threshold parts equal margins
    best = np.flatnonzero(apart & (sums >= sums[apart].max() - 1e-9))
    return float(min(borders[best], key=abs))
