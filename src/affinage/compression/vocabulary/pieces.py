"""Which pieces of a tokenizer a corpus uses, what these need to come about as before, and the tokenizer of these alone.

A tokenizer is looked at as its JSON. Taking a piece away must not change how a text is cut whose pieces all stay:

- Unigram takes the most probable path; another path that is gone was not the best. An unknown character scores 10 less
  than the least probable piece, so that one stays.
- WordPiece takes the longest piece that fits. A word that is unknown to it fits up to somewhere: the pieces up to there
  stay, or a shorter one would take their place and the word be known.
- BPE joins pairs by rank. Of a piece that stays all merges stay that lead to it, and what they join.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from affinage.errors import InputError

State = dict[str, Any]
"""A tokenizer's JSON."""

_BATCH = 1000
_WORD_MARK = "▁"


def state_of(backend: Tokenizer) -> State:
    """The tokenizer's JSON. Raises: InputError for a kind that cannot be trimmed."""
    state: State = json.loads(backend.to_str())
    kind = state["model"]["type"]
    if kind not in ("Unigram", "WordPiece", "BPE"):
        raise InputError(f"a tokenizer of kind {kind} cannot be trimmed; Unigram, WordPiece and BPE can")
    return state


def piece_counts(backend: Tokenizer, texts: Sequence[str]) -> Counter[int]:
    """How often each id comes up in the texts, special tokens included."""
    counts = Counter[int]()
    for start in range(0, len(texts), _BATCH):
        for encoding in backend.encode_batch(list(texts[start : start + _BATCH])):
            counts.update(encoding.ids)
    return counts


def pieces_of(state: State) -> list[tuple[int, str]]:
    """(id, piece) of the model's own vocabulary; in a Unigram's a string may come twice."""
    vocabulary = state["model"]["vocab"]
    if state["model"]["type"] == "Unigram":
        return [(i, piece) for i, (piece, _) in enumerate(vocabulary)]
    return [(i, piece) for piece, i in vocabulary.items()]


def needed_by(state: State, used: set[int], backend: Tokenizer, texts: Sequence[str]) -> set[int]:
    """`used` and the ids that these need: special tokens, bytes, letters, and what makes them as the file says above.

    Letters: of every letter in a used piece the piece of that letter alone, so that what is written with them stays
    writable.
    """
    model = state["model"]
    pieces = pieces_of(state)
    special = {token["content"]: int(token["id"]) for token in state["added_tokens"]}
    kept = used | set(special.values()) | {i for i, piece in pieces if piece in special or _is_byte(piece)}
    kept |= {i for i, piece in pieces if piece == model.get("unk_token")}
    if "ByteLevel" in json.dumps([state["pre_tokenizer"], state["normalizer"]]):
        kept |= {i for i, piece in pieces if len(piece) == 1}
    number = {piece: i for i, piece in pieces}
    before, after = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    for letter in {letter for i, piece in pieces if i in kept and piece not in special for letter in piece}:
        forms = (letter, _WORD_MARK + letter, before + letter, letter + after, before + letter + after)
        kept |= {number[form] for form in forms if form in number}
    match model["type"]:
        case "Unigram":
            scores = [score for _, score in model["vocab"]]
            kept.add(scores.index(min(scores)))
            kept.add(model["unk_id"] or 0)
        case "WordPiece":
            kept |= set(_before_unknown(model, backend, texts))
        case "BPE":
            _with_parts_(kept, number, _merges(model), before)
    return kept


def trimmed(state: State, kept: Sequence[int]) -> State:
    """The tokenizer of the ids `kept` (rising); the new id of each is its place."""
    new = {old: place for place, old in enumerate(kept)}
    made: State = json.loads(json.dumps(state))
    model = made["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [model["vocab"][old] for old in kept if old < len(model["vocab"])]
        if model["unk_id"] is not None:
            model["unk_id"] = new[model["unk_id"]]
    else:
        model["vocab"] = {piece: new[old] for piece, old in model["vocab"].items() if old in new}
    if model["type"] == "BPE":
        before = model.get("continuing_subword_prefix") or ""
        model["merges"] = [
            merge
            for merge, (left, right) in zip(model["merges"], _merges(model), strict=True)
            if {left, right, left + right.removeprefix(before)} <= model["vocab"].keys()
        ]
    made["added_tokens"] = [{**token, "id": new[token["id"]]} for token in state["added_tokens"] if token["id"] in new]
    _renumber_(made["post_processor"], new)
    return made


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Older files write a pair as one string."""
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right) for left, right in pairs]


def _with_parts_(kept: set[int], number: Mapping[str, int], merges: Iterable[tuple[str, str]], before: str) -> None:
    parts: dict[int, set[int]] = {}
    for left, right in merges:
        whole = number.get(left + right.removeprefix(before))
        if whole is not None and left in number and right in number:
            parts.setdefault(whole, set()).update((number[left], number[right]))
    waiting = list(kept)
    while waiting:
        more = parts.get(waiting.pop(), set()) - kept
        kept |= more
        waiting.extend(more)


def _before_unknown(model: Mapping[str, Any], backend: Tokenizer, texts: Sequence[str]) -> Iterator[int]:
    """Ids of the longest pieces that an unknown word begins with, up to where none fits."""
    number, prefix = model["vocab"], model["continuing_subword_prefix"]
    unknown = number.get(model["unk_token"])
    words: set[str] = set()
    for start in range(0, len(texts), _BATCH):
        part = list(texts[start : start + _BATCH])
        for text, encoding in zip(part, backend.encode_batch(part), strict=True):
            if unknown in encoding.ids:
                plain = backend.normalizer.normalize_str(text) if backend.normalizer else text
                split = backend.pre_tokenizer.pre_tokenize_str(plain) if backend.pre_tokenizer else [(plain, (0, 0))]
                words.update(word for word, _ in split)
    for word in words:
        start = 0
        while start < len(word):
            ends = range(len(word), start, -1)
            fits = (end for end in ends if (prefix if start else "") + word[start:end] in number)
            end = next(fits, None)
            if end is None:
                break
            yield number[(prefix if start else "") + word[start:end]]
            start = end


def _is_byte(piece: str) -> bool:
    """<0x41>, which stands for a byte where a character is unknown."""
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _renumber_(processor: Any, new: Mapping[int, int]) -> None:
    """Special ids of a post-processor: a template's, BERT's, RoBERTa's, or of a sequence of them."""
    if not isinstance(processor, dict):
        return
    for inner in processor.get("processors", ()):
        _renumber_(inner, new)
    special = processor.get("special_tokens")
    for token in special.values() if isinstance(special, dict) else ():
        token["ids"] = [new[old] for old in token["ids"]]
    for name in ("cls", "sep"):
        if isinstance(processor.get(name), list):
            text, old = processor[name]
            processor[name] = [text, new[old]]
