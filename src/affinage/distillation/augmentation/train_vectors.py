"""Word vectors from raw text: truncated SVD of the words' positive pointwise mutual information.

Levy, Goldberg & Dagan 2015, "Improving distributional similarity with lessons learned from word embeddings" (TACL 3),
sections 2 and 3: context distribution smoothing 0.75, eigenvalues to the power 1/2. Unlike word2vec's sampling it gives
the same vectors every time, and needs no package that is not there already.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from affinage.data.words import split_words
from affinage.distillation.augmentation.vectors import WordVectors
from affinage.distillation.augmentation.words import folded, is_word

log = logging.getLogger(__name__)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_TRAINING_WORDS = 20_000_000
"""Words of text that are read, from its beginning: 8 bytes each."""
_PART = 2_000_000
"""Words whose neighbours are counted at a time."""
_RARE = -2
_SMOOTHING = 0.75
_OVERSAMPLING = 10
_POWER_ITERATIONS = 4


@dataclass(frozen=True)
class VectorSettings:
    """How word vectors are trained."""

    dimensions: int = 100
    window: int = 5
    """words to either side that count as context"""
    least: int = 3
    """times that a word must stand in the text"""
    words: int = 30_000
    """at most, the most frequent ones"""


def train_vectors(
    lines: Iterable[str], settings: VectorSettings = VectorSettings(), *, seed: int = 0
) -> WordVectors | None:
    """Vectors of the words of `lines`, in the spelling (capitals) that each has most often; None of too little text."""
    text, words = _numbered(lines, settings)
    if len(words) < 3:
        return None
    rows, columns, counts = _counted(text, len(words), settings.window)
    rows, columns, values = positive_pmi(rows, columns, counts, len(words))
    if not len(values):
        return None
    table = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([rows, columns])),
        torch.from_numpy(values.astype(np.float32)),
        (len(words), len(words)),
        check_invariants=False,
    ).coalesce()
    kept = min(settings.dimensions, len(words) - 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        left, sizes, _ = torch.svd_lowrank(table, q=min(kept + _OVERSAMPLING, len(words)), niter=_POWER_ITERATIONS)
    return WordVectors.of(words, (left[:, :kept] * sizes[:kept].sqrt()).numpy())


def positive_pmi(rows: Ints, columns: Ints, counts: Floats, words: int) -> tuple[Ints, Ints, Floats]:
    """Word, context and count of each pair -> word, context and max(0, log P(w, c) / (P(w) P'(c))), where it is more
    than 0; P'(c) is proportional to count(c)^0.75.
    """
    of_word = np.bincount(rows, weights=counts, minlength=words)
    of_context = np.bincount(columns, weights=counts, minlength=words) ** _SMOOTHING
    pmi = np.log(counts * of_context.sum() / (of_word[rows] * of_context[columns]))
    positive = pmi > 0
    return rows[positive], columns[positive], pmi[positive]


def _numbered(lines: Iterable[str], settings: VectorSettings) -> tuple[Ints, list[str]]:
    """The frequent words of the text by number, -1 between two lines; the words by number. The others are left out."""
    numbers: dict[str, int] = {}
    spellings: list[Counter[str]] = []
    found: list[NDArray[np.int32]] = []
    total = 0
    for line in lines:
        ids = [-1]
        for start, end in split_words(line):
            plain = folded(line[start:end])
            if not is_word(plain):
                continue
            if plain not in numbers:
                numbers[plain] = len(numbers)
                spellings.append(Counter())
            ids.append(numbers[plain])
            spellings[ids[-1]][line[start:end]] += 1
        found.append(np.array(ids, np.int32))
        total += len(ids)
        if total >= MAX_TRAINING_WORDS:
            log.info("word vectors are trained on the first %s words of the text", f"{total:,}")
            break
    counts = np.array([spelling.total() for spelling in spellings], np.int64)
    order = np.argsort(-counts, kind="stable")[: settings.words]
    order = order[counts[order] >= settings.least]
    renumbered = np.full(len(counts) + 1, _RARE, np.int64)
    renumbered[order] = np.arange(len(order))
    renumbered[-1] = -1
    text: Ints = renumbered[np.concatenate(found)] if found else renumbered[:0]
    return text[text != _RARE], [spellings[i].most_common(1)[0][0] for i in order]


def _counted(text: Ints, words: int, window: int) -> tuple[Ints, Ints, Floats]:
    """Word, context and count of every pair at most `window` words apart; a pair at distance d counts 1/d."""
    keys: Ints = np.zeros(0, np.int64)
    counts: Floats = np.zeros(0)
    line = np.cumsum(text < 0)
    for begin in range(0, len(text), _PART):
        pairs, weights = [keys], [counts]
        for distance in range(1, window + 1):
            first = np.arange(begin, min(begin + _PART, len(text) - distance))
            first = first[(text[first] >= 0) & (line[first] == line[first + distance])]
            a, b = text[first], text[first + distance]
            pairs += [a * words + b, b * words + a]
            weights += [np.full(2 * len(a), 1 / distance)]
        keys, inverse = np.unique(np.concatenate(pairs), return_inverse=True)
        counts = np.bincount(inverse, np.concatenate(weights), len(keys)).astype(np.float64)
    return keys // words, keys % words, counts
