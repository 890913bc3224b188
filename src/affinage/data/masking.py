"""Dynamic masking for masked language models: which tokens are hidden, and by what."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np
from numpy.typing import NDArray

from affinage.recipe import Masking
from affinage.signals import IGNORED

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Masker:
    """Masks rows of ids. A row's masks depend on the generator alone, so that a resumed run draws the same."""

    masking: Masking
    mask_id: int
    special: NDArray[np.bool_]
    """(V,) ids that are never masked and never drawn as a random replacement"""
    starts_word: NDArray[np.bool_]
    """(V,) ids that start a word"""
    weights: NDArray[np.float64] | None = None
    """(V,) above 0, how likely an id is to be chosen beside the others; None: all alike"""

    def __post_init__(self) -> None:
        if (self.weights is None) != (self.masking.smoothing is None):
            raise ValueError("masking.smoothing needs weights, and weights need masking.smoothing")

    @cached_property
    def _drawable(self) -> Ids:
        """Ids that a random replacement may be."""
        return np.flatnonzero(~self.special)

    def __call__(self, ids: Ids, rng: np.random.Generator) -> tuple[Ids, Ids]:
        """(T,) ids -> (T,) masked ids and (T,) labels, IGNORED where nothing is to be guessed."""
        candidates = np.flatnonzero(~self.special[ids])
        if self.weights is not None:
            chosen = self._weighted(ids, candidates, self.weights, rng)
        else:
            chosen = self._evenly(ids, candidates, rng)
        labels = np.full_like(ids, IGNORED)
        labels[chosen] = ids[chosen]
        masked = ids.copy()
        draw = rng.random(len(chosen))
        masked[chosen[draw < self.masking.mask]] = self.mask_id
        replaced = chosen[(draw >= self.masking.mask) & (draw < self.masking.mask + self.masking.random)]
        masked[replaced] = self._drawable[rng.integers(len(self._drawable), size=len(replaced))]
        return masked, labels

    def _evenly(self, ids: Ids, candidates: Ids, rng: np.random.Generator) -> Ids:
        """Positions of the share asked for, of tokens or whole words that are all equally likely."""
        wanted = max(1, round(self.masking.probability * len(candidates))) if len(candidates) else 0
        if self.masking.whole_words:
            return self._whole_words(ids, candidates, wanted, rng)
        return rng.permutation(candidates)[:wanted]

    def _weighted(self, ids: Ids, candidates: Ids, weights: NDArray[np.float64], rng: np.random.Generator) -> Ids:
        """Positions drawn one after another without replacement, each in proportion to its weight among those left.

        As many as in DistilBERT's code, which takes its share of all real tokens, special ones counted, rounded up;
        but of each row, where that code draws over a batch: masks would then depend on what else is in the batch.
        """
        wanted = ceil(self.masking.probability * len(ids))
        # The order in which clocks of these rates ring first is the order of such draws.
        rings = rng.exponential(size=len(candidates)) / weights[ids[candidates]]
        return candidates[np.argsort(rings, kind="stable")[:wanted]]

    def _whole_words(self, ids: Ids, candidates: Ids, wanted: int, rng: np.random.Generator) -> Ids:
        """Positions of random whole words until `wanted` tokens are reached; the last word may exceed it."""
        word = np.cumsum(self.starts_word[ids] | self.special[ids])[candidates]  # ascending
        first = np.flatnonzero(np.diff(word, prepend=-1))
        lengths = np.diff(first, append=len(word))
        order = rng.permutation(len(first))
        before = np.cumsum(lengths[order]) - lengths[order]
        taken = order[before < wanted]
        chosen = [candidates[first[number] : first[number] + lengths[number]] for number in taken]
        return np.concatenate(chosen) if chosen else candidates[:0]


def rarity(counts: NDArray[np.int64], smoothing: float) -> NDArray[np.float64]:
    """(V,) weights of ids that were counted so often: max(count, 1) ** -smoothing, in (0, 1].

    Lample & Conneau 2019 (XLM), arXiv:1901.07291, section 3.3, as in DistilBERT's code, where smoothing is 0.7.
    """
    weights: NDArray[np.float64] = np.maximum(counts, 1.0) ** -smoothing
    return weights
