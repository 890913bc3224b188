"""Which tokens a masked place most likely holds. Letters: V vocabulary."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from affinage.decoding.labels import softmax


def best_tokens(
    logits: NDArray[np.floating], *, top_k: int = 5, excluded: Sequence[int] = ()
) -> list[tuple[int, float]]:
    """The `top_k` most probable token ids of one place (V,), best first, with their probability in [0, 1].

    `excluded` ids (special tokens, which no text holds) are never returned; they keep their share of probability.
    """
    probabilities = softmax(logits)
    ranked = probabilities.copy()
    ranked[list(excluded)] = -1.0
    order = np.argsort(-ranked, kind="stable")[: min(top_k, len(ranked) - len(set(excluded)))]
    return [(int(i), float(probabilities[i])) for i in order]
