"""Which class a row of logits names, and with what probability."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Label(TypedDict):
    """A class and its probability in [0, 1]."""

    label: str
    score: float


def softmax(logits: NDArray[np.floating], axis: int = -1) -> Floats:
    """exp(x) / sum(exp(x)) along `axis`, in float64 whatever comes; same shape."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=axis, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=axis, keepdims=True))


def sigmoid(logits: NDArray[np.floating]) -> Floats:
    """1 / (1 + exp(-x)) in float64 whatever comes, without overflow; same shape."""
    x = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, small, 1.0) / (1 + small))


def holding_labels(
    logits: NDArray[np.floating], names: Sequence[str], *, threshold: float = 0.5
) -> list[tuple[str, float]]:
    """The classes of one row of logits (C,) whose own probability is at least `threshold`, most probable first."""
    probabilities = sigmoid(logits)
    order = np.argsort(-probabilities, kind="stable")
    return [(names[i], float(probabilities[i])) for i in order if probabilities[i] >= threshold]


def ranked_labels(logits: NDArray[np.floating], names: Sequence[str], *, top_k: int | None = None) -> list[Label]:
    """The classes of one row of logits (C,), most probable first: all of them, or the `top_k` best."""
    probabilities = softmax(logits)
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return [{"label": names[i], "score": float(probabilities[i])} for i in order]
