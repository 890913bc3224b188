"""Vectors of texts: made to have length 1, so that their products are cosines."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """(…, H) -> (…, H) of Euclidean length 1; a vector of zeros stays one."""
    found = np.asarray(vectors, np.float32)
    lengths = np.sqrt((found.astype(np.float64) ** 2).sum(-1, keepdims=True))
    return (found / np.where(lengths > 0, lengths, 1)).astype(np.float32)
