"""Changed copies of texts: each word that carries meaning is replaced with some probability by one of its candidates.

Jiao et al. 2020 (TinyBERT), arXiv:1909.10351, algorithm 1: the candidates for a word of one piece are those the masked
language model finds likeliest, for a word of several pieces its neighbours among word vectors.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from affinage.data.encoding import Row
from affinage.distillation.augmentation.fill_mask import FillMask, Masked
from affinage.distillation.augmentation.languages import Language
from affinage.distillation.augmentation.vectors import WordVectors
from affinage.distillation.augmentation.words import Place, fitting, folded, places_in

SOURCES = ("model", "vectors", "none")
"""Where the candidates for a word come from; `none`: it has none, and stays."""
_RANKED = 4
"""Times `candidates` that are asked for, since some do not fit."""


@dataclass(frozen=True)
class Augmentation:
    """The algorithm's parameters, in the paper's values: N_a, p_t and K."""

    copies: int = 20
    """at most, of a text: those that say the same are kept once"""
    probability: float = 0.4
    """with which a word is replaced"""
    candidates: int = 15
    """for a word, from which one is drawn"""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Augmenter:
    """Makes copies. What a text's copies are depends on the text, its number and the seed alone."""

    fill_mask: FillMask
    vectors: WordVectors | None
    """None: words of several pieces stay"""
    language: Language
    settings: Augmentation
    _counts: Counter[str] = field(default_factory=Counter)

    def taken(self) -> dict[str, int]:
        """The words drawn since this was asked last, by where their candidates came from (`SOURCES`)."""
        counts = dict(self._counts)
        self._counts.clear()
        return counts

    def copies(self, texts: Sequence[str], *, first: int, part: int = 0) -> list[list[str]]:
        """The different copies of each text, none of them the text itself; the texts' numbers begin at `first`.

        `part`: 0, or 1 for second texts of pairs.
        """
        rows = self.fill_mask.rows(texts)
        places = [self._places(text, row) for text, row in zip(texts, rows, strict=True)]
        drawn = [self._draw((first + i, part), len(found)) for i, found in enumerate(places)]
        columns = [np.flatnonzero(replaced.any(axis=0)).tolist() for replaced, _ in drawn]
        wanted = [(i, j) for i, found in enumerate(columns) for j in found]
        candidates = dict(zip(wanted, self._candidates(rows, places, wanted), strict=True))
        result: list[list[str]] = []
        for i, text in enumerate(texts):
            found: dict[str, None] = {}
            for replaced, rank in zip(*drawn[i], strict=True):
                changes = [
                    (places[i][j], words[int(rank[j] * len(words))])
                    for j in np.flatnonzero(replaced).tolist()
                    if (words := candidates[i, j])
                ]
                found[_replaced(text, changes)] = None
            found.pop(text, None)
            result.append(list(found))
        return result

    def _places(self, text: str, row: Row) -> list[Place]:
        found = places_in(text, self.language)
        plain = self.fill_mask.plain(row, [(place.start, place.end) for place in found])
        return [place for place, is_plain in zip(found, plain, strict=True) if is_plain]

    def _draw(self, number: tuple[int, int], words: int) -> tuple[np.ndarray, np.ndarray]:
        """(copies, words) bool, whether a word is replaced, and in [0, 1), which of its candidates it would be."""
        random = np.random.default_rng((self.settings.seed, *number))
        shape = (self.settings.copies, words)
        return random.random(shape) < self.settings.probability, random.random(shape)

    def _candidates(
        self, rows: Sequence[Row], places: Sequence[Sequence[Place]], wanted: Sequence[tuple[int, int]]
    ) -> list[list[str]]:
        """Of each wanted word: (text, place in it)."""
        tokens = [
            self.fill_mask.whole_words(row, [(place.start, place.end) for place in found])
            for row, found in zip(rows, places, strict=True)
        ]
        ranked: dict[tuple[int, int], list[str]] = {}
        count = _RANKED * self.settings.candidates
        masked = {(i, j): Masked(rows[i], token) for i, j in wanted if (token := tokens[i][j]) is not None}
        ranked.update(zip(masked, self.fill_mask.candidates(list(masked.values()), count), strict=True))
        if self.vectors is not None:
            others = {(i, j): places[i][j].word for i, j in wanted if (i, j) not in masked}
            words = list(dict.fromkeys(others.values()))
            near = dict(zip(words, self.vectors.nearest(words, count), strict=True))
            ranked.update((key, self._without_function_words(near[word])) for key, word in others.items())
        found = [
            fitting(places[i][j], ranked.get((i, j), ()), self.language, count=self.settings.candidates)
            for i, j in wanted
        ]
        for key, words in zip(wanted, found, strict=True):
            self._counts["none" if not words else "model" if key in masked else "vectors"] += 1
        return found

    def _without_function_words(self, words: Sequence[str]) -> list[str]:
        """Vectors know nothing of grammar, as the model does."""
        return [word for word in words if folded(word) not in self.language.stop_words]


def _replaced(text: str, words: Sequence[tuple[Place, str]]) -> str:
    """The text with these words, in order, in their places."""
    parts: list[str] = []
    behind = 0
    for place, word in words:
        parts += [text[behind : place.start], word]
        behind = place.end
    return "".join([*parts, text[behind:]])
