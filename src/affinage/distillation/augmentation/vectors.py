"""Word vectors and the nearest neighbours of a word among them. Letters: W words, D dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from affinage.data.lines import read_lines
from affinage.distillation.augmentation.words import folded, is_word
from affinage.errors import DataError, legible

Floats = NDArray[np.float32]

MAX_WORDS = 100_000
"""Read of a file, its first ones, which are the frequent ones; as many as TinyBERT's code reads."""
MAX_DIMENSIONS = 2_048
MAX_ENTRIES = 64_000_000
"""Numbers kept of a file (256 MB): with more than 640 dimensions, fewer words are read."""
_SCORES = 16_000_000
"""Similarities computed at a time."""


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Vectors of length 1, so that a product is a cosine."""

    words: tuple[str, ...]
    units: Floats
    """(W, D)"""

    @classmethod
    def of(cls, words: Sequence[str], vectors: Floats) -> "WordVectors":
        """Words and their (W, D) vectors; a vector of zeros points nowhere and is left out."""
        length = np.linalg.norm(vectors, axis=1)
        kept = np.flatnonzero(length > 0)
        return cls(tuple(words[i] for i in kept.tolist()), vectors[kept] / length[kept, None])

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """Word, and its folded form where that is no other word, -> its number."""
        exact = {word: i for i, word in enumerate(self.words)}
        loose: dict[str, int] = {}
        for i, word in enumerate(self.words):
            loose.setdefault(folded(word), i)
        return {**loose, **exact}

    def nearest(self, words: Sequence[str], count: int) -> list[list[str]]:
        """For each word its `count` neighbours by cosine, nearest first; none where the word has no vector."""
        numbers = [self._numbers.get(word, self._numbers.get(folded(word))) for word in words]
        known = [(place, number) for place, number in enumerate(numbers) if number is not None]
        found: list[list[str]] = [[] for _ in words]
        step = max(1, _SCORES // max(1, len(self.words)))
        for begin in range(0, len(known), step):
            part = known[begin : begin + step]
            own = [number for _, number in part]
            scores = self.units[own] @ self.units.T
            scores[np.arange(len(own)), own] = -np.inf
            kept = min(count, len(self.words) - 1)
            top = np.argpartition(-scores, kept - 1, axis=1)[:, :kept] if kept else np.zeros((len(own), 0), int)
            for (place, _), row, columns in zip(part, scores, top, strict=True):
                order = columns[np.lexsort((columns, -row[columns]))]
                found[place] = [self.words[i] for i in order]
        return found


def read_vectors(path: Path) -> WordVectors:
    """The vectors of a text file as word2vec, fastText and GloVe write it, plain or .gz.

    A line is a word and its numbers, with spaces between; a first line of two whole numbers (words, dimensions) may
    stand before. Of the first `MAX_WORDS` lines those are kept whose word has letters alone.

    Raises: InputError if it cannot be opened; DataError naming file:line for what is no such line.
    """
    words: list[str] = []
    rows: list[Floats] = []
    seen: set[str] = set()
    dimensions = 0
    most = MAX_WORDS
    read = 0
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        cells = line.rstrip("\r\n ").split(" ")
        if number == 1 and len(cells) == 2 and all(cell.isdecimal() for cell in cells):
            dimensions = _dimensions(cells[1], where)
            continue
        if not dimensions:
            dimensions = _dimensions(str(len(cells) - 1), where)
        most = min(MAX_WORDS, MAX_ENTRIES // dimensions)
        if read == most:
            break
        read += 1
        if len(cells) <= dimensions:
            raise DataError(
                f"{where}: expected a word and {dimensions} numbers, with spaces between; got {len(cells) - 1} numbers"
            )
        word = " ".join(cells[:-dimensions])
        vector = _numbers(cells[-dimensions:], where)
        if is_word(word) and word not in seen:
            seen.add(word)
            words.append(word)
            rows.append(vector)
    vectors = WordVectors.of(words, np.stack(rows)) if rows else None
    if vectors is None or not vectors.words:
        raise DataError(f"{path}:1: no word vector in it; expected a word and its numbers on each line (.vec, text)")
    return vectors


def _dimensions(text: str, where: str) -> int:
    value = int(text) if len(text) < 10 else MAX_DIMENSIONS + 1
    if not 1 < value <= MAX_DIMENSIONS:
        raise DataError(
            f"{where}: {text[:20]} numbers a word; expected 2 to {MAX_DIMENSIONS:,}. Is it a .vec file, as text?"
        )
    return value


def _numbers(cells: Sequence[str], where: str) -> Floats:
    try:
        vector = np.array(cells, dtype=np.float64)
    except ValueError:
        wrong = next((cell for cell in cells if not _is_number(cell)), cells[0])
        raise DataError(f"{where}: '{legible(wrong, 40)}' is not a number") from None
    if not np.isfinite(vector).all() or np.abs(vector).max() > 1e18:  # squares stay within float32
        raise DataError(f"{where}: holds a number that is not finite, or is beyond 1e18")
    return vector.astype(np.float32)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
