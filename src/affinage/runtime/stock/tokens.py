"""As transformers' token-classification pipeline: a tag for every token, or entities by one of its strategies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from affinage.data.encoding import Row, encode_windows
from affinage.decoding.labels import Floats, softmax
from affinage.errors import InputError
from affinage.runtime.answers.base import Loaded, Result

STRATEGIES = ("none", "simple", "first", "average", "max")


@dataclass(frozen=True)
class Piece:
    """A token, or the tokens of a word: its probabilities (C,), its place among the row's tokens and in the text."""

    text: str
    scores: Floats
    index: int
    start: int
    end: int
    continues: bool
    """whether it belongs to the word before it"""


def tag(
    loaded: Loaded,
    inputs: list[str],
    *,
    batch_size: int,
    aggregation_strategy: str = "none",
    ignore_labels: Sequence[str] = ("O",),
    stride: int | None = None,
) -> list[list[Result]]:
    """For every text its tokens or entities, those of `ignore_labels` left out.

    Texts are cut at the model's length; with `stride` they are read in windows that share so many tokens.
    """
    strategy = str(getattr(aggregation_strategy, "value", aggregation_strategy)).lower()
    _check(loaded, strategy, stride)
    facts = loaded.facts
    rows = encode_windows(loaded.tokenizer, inputs, max_length=facts.max_length, stride=stride or 0, trim=False)
    if stride is None:
        rows = [next(of_text) for _, of_text in groupby(rows, key=lambda row: row.example)]
    found: list[list[Result]] = [[] for _ in rows]
    for i, (logits,) in loaded.engine.logits(rows, batch_size=batch_size):
        pieces = _pieces(loaded, inputs[rows[i].example], rows[i], softmax(logits))
        found[i] = _entities(loaded, pieces, strategy, ignore_labels)
    windows: list[list[list[Result]]] = [[] for _ in inputs]
    for row, entities in zip(rows, found, strict=True):
        windows[row.example].append(entities)
    return [seen[0] if len(seen) == 1 else _best_of_overlapping(seen) for seen in windows]


def _check(loaded: Loaded, strategy: str, stride: int | None) -> None:
    """Raises: InputError."""
    if strategy not in STRATEGIES:
        raise InputError(f"aggregation_strategy '{strategy}': expected {', '.join(STRATEGIES)}")
    if stride is not None and strategy == "none":
        raise InputError("stride needs an aggregation_strategy: simple, first, average or max")
    if stride is not None and stride >= loaded.facts.max_length:
        raise InputError(f"stride {stride}: expected fewer than the model's {loaded.facts.max_length} tokens")


def _pieces(loaded: Loaded, text: str, row: Row, probabilities: Floats) -> list[Piece]:
    """The row's tokens but the special ones."""
    prefix = getattr(loaded.tokenizer.model, "continuing_subword_prefix", None)
    pieces = []
    for index in np.flatnonzero(row.sequence_ids == 0).tolist():
        token, (start, end) = int(row.input_ids[index]), row.offsets[index].tolist()
        piece = loaded.tokenizer.id_to_token(token) or ""
        inside = start > 0 and " " not in text[start - 1 : start + 1]
        continues = len(piece) != end - start if prefix else inside
        if token == loaded.facts.unk_id:
            piece, continues = text[start:end], False
        pieces.append(Piece(piece, probabilities[index], index, start, end, continues))
    return pieces


def _entities(loaded: Loaded, pieces: list[Piece], strategy: str, ignored: Sequence[str]) -> list[Result]:
    names = loaded.facts.labels
    if strategy not in ("none", "simple"):
        pieces = [_word(loaded, word, strategy) for word in _words(pieces)]
    tagged = [(names[int(piece.scores.argmax())], piece) for piece in pieces]
    if strategy == "none":
        return [
            {
                "entity": name,
                "score": float(piece.scores.max()),
                "index": piece.index,
                "word": piece.text,
                "start": piece.start,
                "end": piece.end,
            }
            for name, piece in tagged
            if name not in ignored
        ]
    groups: list[tuple[str, list[Piece]]] = []
    for name, piece in tagged:
        begins, kind = name.startswith("B-"), name[2:] if name[:2] in ("B-", "I-") else name
        if groups and groups[-1][0] == kind and not begins:
            groups[-1][1].append(piece)
        else:
            groups.append((kind, [piece]))
    return [
        {
            "entity_group": kind,
            "score": float(np.mean([piece.scores.max() for piece in held])),
            "word": _joined(loaded, held),
            "start": held[0].start,
            "end": held[-1].end,
        }
        for kind, held in groups
        if kind not in ignored
    ]


def _words(pieces: list[Piece]) -> list[list[Piece]]:
    words: list[list[Piece]] = []
    for piece in pieces:
        if words and piece.continues:
            words[-1].append(piece)
        else:
            words.append([piece])
    return words


def _word(loaded: Loaded, pieces: list[Piece], strategy: str) -> Piece:
    """The tokens of a word as one, with the probabilities of one of them, or their mean."""
    chosen: dict[str, Callable[[], Floats]] = {
        "first": lambda: pieces[0].scores,
        "max": lambda: max(pieces, key=lambda piece: float(piece.scores.max())).scores,
        "average": lambda: np.asarray(np.mean([piece.scores for piece in pieces], axis=0)),
    }
    first, last = pieces[0], pieces[-1]
    return Piece(_joined(loaded, pieces), chosen[strategy](), first.index, first.start, last.end, False)


def _joined(loaded: Loaded, pieces: list[Piece]) -> str:
    """The tokens as text, by the tokenizer's own decoder."""
    texts, decoder = [piece.text for piece in pieces], loaded.tokenizer.decoder
    return " ".join(texts) if decoder is None else str(decoder.decode(texts))


def _best_of_overlapping(windows: list[list[Any]]) -> list[Result]:
    """Of the entities of neighbouring windows that overlap, the longest; of equally long ones the likeliest."""
    kept: list[Result] = []
    for entity in sorted((one for found in windows for one in found), key=lambda one: int(one["start"])):
        if not kept or not kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            kept.append(entity)
            continue
        sizes = [(one["end"] - one["start"], one["score"]) for one in (entity, kept[-1])]
        if sizes[0] > sizes[1]:
            kept[-1] = entity
    return kept
