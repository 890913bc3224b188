"""Which entities a row of BIO tags marks, and where they stand in the text.

Letters: W words of a text, C classes, T tokens of a window.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from affinage.decoding.labels import Floats, softmax


class Chunk(NamedTuple):
    """An entity among tags: its type, its first word and the one after its last."""

    kind: str
    first: int
    end: int


class Entity(TypedDict):
    """An entity of a text; `word == text[start:end]`. `score`: mean probability, in [0, 1], of its words' tags."""

    entity_group: str
    score: float
    word: str
    start: int
    end: int


def bio_chunks(tags: Sequence[str]) -> list[Chunk]:
    """The entities in BIO tags: B- begins one, I- of the same type continues it.

    Tolerant, as seqeval's default mode (and CoNLL's own script) is: an I- without its B- begins an entity. A tag
    without prefix counts as I-.

    >>> bio_chunks(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
    [Chunk(kind='PER', first=0, end=2), Chunk(kind='LOC', first=3, end=4), Chunk(kind='LOC', first=4, end=5)]
    """
    chunks: list[Chunk] = []
    kind, first = "", 0
    for i, tag in enumerate([*tags, "O"]):
        begins, current = (False, "") if tag == "O" else _parts(tag)
        if kind and (begins or current != kind):
            chunks.append(Chunk(kind, first, i))
            kind = ""
        if current and not kind:
            kind, first = current, i
    return chunks


def words_over_windows(
    windows: Sequence[tuple[NDArray[np.int64], NDArray[np.floating]]], *, words: int, classes: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """(W, C) tag probabilities of the words of one text, from the windows that cover it; and (W,) whether a window did.

    A window is (first tokens (W,), -1 where a word is not in it; logits (T, C)). A word that several windows hold is
    read where it has most context: in the window whose nearer edge is farthest away.
    """
    probabilities = np.zeros((words, classes))
    margin = np.full(words, -1)
    for first, logits in windows:
        room = np.where(first >= 0, np.minimum(first, len(logits) - 1 - first), -1)
        better = np.flatnonzero(room > margin)
        probabilities[better] = softmax(logits[first[better]])
        margin[better] = room[better]
    return probabilities, margin >= 0


def word_tags(probabilities: Floats, seen: NDArray[np.bool_], names: Sequence[str]) -> list[str]:
    """The most probable tag of every word; O where no window had the word (a tokenizer can drop a character)."""
    best = probabilities.argmax(axis=1)
    return [names[i] if ok else "O" for i, ok in zip(best, seen, strict=True)]


def find_entities(
    text: str, spans: Sequence[tuple[int, int]], probabilities: Floats, seen: NDArray[np.bool_], names: Sequence[str]
) -> list[Entity]:
    """The entities of a text whose words stand at `spans` (W) and have these tag probabilities (W, C)."""
    best = probabilities.max(axis=1)
    found: list[Entity] = []
    for kind, first, end in bio_chunks(word_tags(probabilities, seen, names)):
        start, stop = spans[first][0], spans[end - 1][1]
        score = float(best[first:end].mean())
        found.append({"entity_group": kind, "score": score, "word": text[start:stop], "start": start, "end": stop})
    return found


def _parts(tag: str) -> tuple[bool, str]:
    """Whether a tag begins an entity, and the entity's type."""
    if tag[:2] in {"B-", "I-"}:
        return tag[0] == "B", tag[2:]
    return False, tag
