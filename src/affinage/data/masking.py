"""Dynamic masking for masked language models: which tokens are hidden, and by what."""

from dataclasses import dataclass

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

    def __call__(self, ids: Ids, rng: np.random.Generator) -> tuple[Ids, Ids]:
        """(T,) ids -> (T,) masked ids and (T,) labels, IGNORED where nothing is to be guessed."""
        candidates = np.flatnonzero(~self.special[ids])
        wanted = max(1, round(self.masking.probability * len(candidates))) if len(candidates) else 0
        if self.masking.whole_words:
            chosen = self._whole_words(ids, candidates, wanted, rng)
        else:
            chosen = rng.permutation(candidates)[:wanted]
        labels = np.full_like(ids, IGNORED)
        labels[chosen] = ids[chosen]
        masked = ids.copy()
        draw = rng.random(len(chosen))
        masked[chosen[draw < self.masking.mask]] = self.mask_id
        replaced = chosen[(draw >= self.masking.mask) & (draw < self.masking.mask + self.masking.random)]
        masked[replaced] = rng.choice(np.flatnonzero(~self.special), size=len(replaced))
        return masked, labels

    def _whole_words(self, ids: Ids, candidates: Ids, wanted: int, rng: np.random.Generator) -> Ids:
        """Positions of random whole words until `wanted` tokens are reached; the last word may exceed it."""
        word = np.cumsum(self.starts_word[ids] | self.special[ids])[candidates]
        chosen: list[Ids] = []
        count = 0
        for number in rng.permutation(np.unique(word)):
            if count >= wanted:
                break
            chosen.append(candidates[word == number])
            count += len(chosen[-1])
        return np.concatenate(chosen) if chosen else candidates[:0]
