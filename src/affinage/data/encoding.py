"""How texts become rows of token ids with offsets: singles, pairs, and overlapping windows over long texts.

Works on a `tokenizers.Tokenizer` and leaves its truncation and padding settings alone: texts are encoded whole and cut
here. Special tokens and type ids are those of the tokenizer's own template. Letters: T tokens of a row, W words.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from affinage.errors import InputError

Ints = NDArray[np.int64]

_CHUNK = 1024  # texts encoded at a time, and
_CHARACTERS = 2**20  # of them all: bounds the memory of tokenizers' own objects, some 100 bytes a character
_SPACE_PIECES = frozenset("▁Ġ")  # a piece that is only a word boundary (Metaspace, byte-level)
_VISIBLE = re.compile(r"\S")
_NO_OFFSETS, _NO_IDS = np.zeros((0, 2), np.int64), np.zeros(0, np.int64)


@dataclass(frozen=True)
class Row:
    """One row for the encoder. Offsets never begin or end with white space; a token that is only white space, and a
    special token, has an empty one.
    """

    example: int
    """index of the text (or pair, or question) it came from"""
    input_ids: Ints
    """(T,)"""
    type_ids: Ints
    """(T,) 0, or 1 on the second text where the tokenizer's template says so"""
    offsets: Ints
    """(T, 2) start and end characters in the original text (of the pair: in the text that the token belongs to)"""
    sequence_ids: Ints
    """(T,) -1 special, 0 first text, 1 second text; empty, as offsets then are, of rows of `encode_ids`"""
    truncated: bool = False
    """whether some of the text is in no row"""


class _Tokens(NamedTuple):
    """A text without special tokens: ids (T,) and offsets (T, 2)."""

    ids: Ints
    offsets: Ints


@dataclass(frozen=True)
class Template:
    """The special tokens around one text, or around and between two, and the type id of every part."""

    special_ids: tuple[Ints, ...]
    special_types: tuple[Ints, ...]
    text_types: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many special tokens a row has."""
        return sum(map(len, self.special_ids))

    def types(self, *lengths: int) -> Ints:
        """(T,) type ids of a row that holds texts of these lengths."""
        parts = [self.special_types[0]]
        for length, kind, after in zip(lengths, self.text_types, self.special_types[1:], strict=True):
            parts += [np.full(length, kind, np.int64), after]
        return np.concatenate(parts)

    def fill(self, example: int, *texts: _Tokens, truncated: bool = False) -> Row:
        """The row that holds these texts."""
        ids, types, offsets, sequences = [], [], [], []
        for i, (special, special_types) in enumerate(zip(self.special_ids, self.special_types, strict=True)):
            ids.append(special)
            types.append(special_types)
            offsets.append(np.zeros((len(special), 2), np.int64))
            sequences.append(np.full(len(special), -1, np.int64))
            if i < len(texts):
                ids.append(texts[i].ids)
                types.append(np.full(len(texts[i].ids), self.text_types[i], np.int64))
                offsets.append(texts[i].offsets)
                sequences.append(np.full(len(texts[i].ids), i, np.int64))
        joined = [np.concatenate(parts) for parts in (ids, types, offsets, sequences)]
        return Row(example, joined[0], joined[1], joined[2], joined[3], truncated)


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], *, max_length: int) -> list[Row]:
    """One row a text, cut on the right to `max_length` tokens, special tokens included."""
    tokenizer = _unbounded(tokenizer)
    template = template_of(tokenizer, 1)
    room = _room(template, max_length)
    return [
        template.fill(i, _cut(tokens, 0, room), truncated=len(tokens.ids) > room)
        for i, tokens in enumerate(_encode(tokenizer, texts))
    ]


def encode_ids(
    tokenizer: Tokenizer,
    texts: Sequence[str] | Sequence[tuple[str, str]],
    *,
    max_length: int,
    template: Template | None = None,
) -> list[Row]:
    """`encode_texts` or `encode_pairs` for those who need no offsets, at a fraction of the time. `template`: the
    tokenizer's own, where it is known already.
    """
    if not texts:
        return []
    tokenizer = _unbounded(tokenizer)
    paired = isinstance(texts[0], tuple)
    template = template or template_of(tokenizer, 1 + paired)
    room = _room(template, max_length)
    special = [ids.tolist() for ids in template.special_ids]
    one_type = not any(template.text_types) and not any(types.any() for types in template.special_types)
    flat: Iterator[str] = itertools.chain.from_iterable(texts) if paired else iter(texts)  # type: ignore[arg-type]
    encoded = (e.ids for chunk in _chunks(flat) for e in tokenizer.encode_batch_fast(chunk, add_special_tokens=False))
    rows = []
    for i in range(len(texts)):
        parts = [next(encoded) for _ in range(1 + paired)]
        kept = _pair_lengths(len(parts[0]), len(parts[1]), room) if paired else (room,)
        taken = [part[:length] for part, length in zip(parts, kept, strict=True)]
        ids = list(special[0])
        for part, after in zip(taken, special[1:], strict=True):
            ids += part + after
        types = np.zeros(len(ids), np.int64) if one_type else template.types(*map(len, taken))
        cut = sum(map(len, parts)) > room
        rows.append(Row(i, np.array(ids, np.int64), types, _NO_OFFSETS, _NO_IDS, cut))
    return rows


def _pair_lengths(a: int, b: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts of `a` and `b` are kept: the longer loses first."""
    if a + b <= room:
        return a, b
    shorter = min(a, b, room // 2)
    return (shorter, room - shorter) if a <= b else (room - shorter, shorter)


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], *, max_length: int) -> list[Row]:
    """One row a pair; tokens are taken off the end of the longer text first."""
    tokenizer = _unbounded(tokenizer)
    template = template_of(tokenizer, 2)
    room = _room(template, max_length)
    encoded = zip(_encode(tokenizer, (p[0] for p in pairs)), _encode(tokenizer, (p[1] for p in pairs)), strict=True)
    rows = []
    for i, (first, second) in enumerate(encoded):
        cut = len(first.ids) + len(second.ids) > room
        a, b = _pair_lengths(len(first.ids), len(second.ids), room)
        rows.append(template.fill(i, _cut(first, 0, a), _cut(second, 0, b), truncated=cut))
    return rows


def encode_windows(
    tokenizer: Tokenizer, texts: Sequence[str], *, max_length: int, stride: int, trim: bool = True
) -> list[Row]:
    """One or more rows a text: windows of up to `max_length` tokens, neighbours sharing `stride` tokens.

    `trim` False: offsets as the tokenizer gives them, white space and all.
    """
    tokenizer = _unbounded(tokenizer)
    template = template_of(tokenizer, 1)
    room = _room(template, max_length)
    rows = []
    for i, tokens in enumerate(_encode(tokenizer, texts, trim=trim)):
        for start in _starts(len(tokens.ids), room, stride, f"text {i}"):
            rows.append(template.fill(i, _cut(tokens, start, start + room)))
    return rows


def encode_questions(
    tokenizer: Tokenizer,
    questions: Sequence[str],
    contexts: Sequence[str],
    *,
    max_length: int,
    stride: int,
    where: Sequence[str] = (),
) -> list[Row]:
    """One or more rows a question: the whole question, then a window of its context; windows share `stride` tokens, or
    half of theirs where that is less.

    `where`: in which row of which file each stands. Raises: InputError where one has more than `longest_question`.
    """
    tokenizer = _unbounded(tokenizer)
    template = template_of(tokenizer, 2)
    rows = []
    distinct = dict.fromkeys(contexts)  # several questions ask about the same context: it is encoded once
    encoded = dict(zip(distinct, _encode(tokenizer, distinct), strict=True))
    for i, (question, text) in enumerate(zip(_encode(tokenizer, questions), contexts, strict=True)):
        context = encoded[text]
        room = max_length - template.size - len(question.ids)
        if len(question.ids) > longest_question(template, max_length):
            named = f"{where[i]}: question" if where else f"question {i}"
            raise InputError(
                f"{named} ('{questions[i][:40]}…') has {len(question.ids)} tokens, which leaves {max(room, 0)} of a "
                "row for its text; use a shorter question or longer rows (in training: training.row_length)"
            )
        for start in _starts(len(context.ids), room, min(stride, room // 2), text[:40]):
            rows.append(template.fill(i, question, _cut(context, start, start + room)))
    return rows


def longest_question(template: Template, max_length: int) -> int:
    """Tokens that a question may have: a quarter of a row is left for its text, so that windows are few."""
    return max_length - template.size - max_length // 4


def first_token_of_words(row: Row, spans: Sequence[tuple[int, int]]) -> Ints:
    """(W,) index in the row of the token that covers each word's first character; -1 where no token does.

    Looks at the row's only text (sequence id 0). Several tokens may cover one character (bytes): the first is taken.
    """
    tokens = np.flatnonzero((row.sequence_ids == 0) & (row.offsets[:, 1] > row.offsets[:, 0]))
    starts = np.fromiter((s for s, _ in spans), np.int64, len(spans))
    if not len(tokens) or not len(starts):
        return np.full(len(starts), -1, np.int64)
    place = np.searchsorted(row.offsets[tokens, 1], starts, side="right")  # first token that ends after the character
    found = tokens[np.minimum(place, len(tokens) - 1)]
    inside = (place < len(tokens)) & (row.offsets[found, 0] <= starts)
    return np.where(inside, found, -1)


def span_target(row: Row, answer_start: int, answer_text: str) -> tuple[int, int]:
    """First and last token (inclusive) of the answer in this window of its context.

    (0, 0), the <cls> token, where the answer is empty or not wholly inside. Where a token holds more than the answer,
    the span is the smallest one that holds it all.
    """
    start = answer_start + len(answer_text) - len(answer_text.lstrip())
    end = start + len(answer_text.strip())
    tokens = np.flatnonzero((row.sequence_ids == 1) & (row.offsets[:, 1] > row.offsets[:, 0]))
    if start == end or not len(tokens):
        return 0, 0
    starts, ends = row.offsets[tokens, 0], row.offsets[tokens, 1]
    if start < starts[0] or end > ends[-1]:
        return 0, 0
    first = int(np.searchsorted(ends, start, side="right"))
    last = int(np.searchsorted(starts, end, side="left")) - 1
    return (int(tokens[first]), int(tokens[last])) if first <= last else (0, 0)


def _encode(tokenizer: Tokenizer, texts: Iterable[str], *, trim: bool = True) -> Iterator[_Tokens]:
    """Every text as tokens without special tokens, offsets trimmed to visible characters."""
    for chunk in _chunks(texts):
        for text, encoding in zip(chunk, tokenizer.encode_batch(chunk, add_special_tokens=False), strict=True):
            offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
            if not trim:
                yield _Tokens(np.array(encoding.ids, np.int64), offsets)
                continue
            # Metaspace's "▁" before the first word of a text claims that word's first letter: it stands for no letter.
            for i, piece in enumerate(encoding.tokens):
                if piece in _SPACE_PIECES:
                    offsets[i, 1] = offsets[i, 0]
            yield _Tokens(np.array(encoding.ids, np.int64), _trim(text, offsets))


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text)
        if len(chunk) == _CHUNK or characters >= _CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _trim(text: str, offsets: Ints) -> Ints:
    """(T, 2) offsets without the white space at their ends; (start, start) where nothing else is left."""
    visible = np.fromiter((m.start() for m in _VISIBLE.finditer(text)), np.int64)
    first = np.searchsorted(visible, offsets[:, 0])
    after = np.searchsorted(visible, offsets[:, 1])
    trimmed = np.stack([offsets[:, 0], offsets[:, 0]], axis=1)
    kept = np.flatnonzero(after > first)
    trimmed[kept, 0] = visible[first[kept]]
    trimmed[kept, 1] = visible[after[kept] - 1] + 1
    return trimmed


def _unbounded(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer without truncation and padding: a copy where it has them, for its state belongs to the caller."""
    if tokenizer.truncation is None and tokenizer.padding is None:
        return tokenizer
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def template_of(tokenizer: Tokenizer, texts: int) -> Template:
    """The tokenizer's own template for one or two texts, read off an encoding of a letter (or of two)."""
    sample = tokenizer.encode("a", "a" if texts == 2 else None)
    sequence = [-1 if s is None else s for s in sample.sequence_ids]
    ids, types = np.array(sample.ids, np.int64), np.array(sample.type_ids, np.int64)
    if any(i not in sequence for i in range(texts)):
        raise InputError("the tokenizer gives no token for the letter 'a': it cannot be used for text")
    first = [sequence.index(i) for i in range(texts)]
    last = [len(sequence) - sequence[::-1].index(i) for i in range(texts)]
    gaps = [slice(a, b) for a, b in zip([0, *last], [*first, len(sequence)], strict=True)]
    return Template(tuple(ids[g] for g in gaps), tuple(types[g] for g in gaps), tuple(int(types[i]) for i in first))


def _room(template: Template, max_length: int) -> int:
    """Tokens left for text in a row. Raises: InputError where there are none."""
    if max_length <= template.size:
        raise InputError(f"max_length {max_length} leaves no room: {template.size} tokens of a row are special tokens")
    return max_length - template.size


def _starts(length: int, room: int, stride: int, where: str) -> range:
    """First token of every window of `room` tokens over `length` tokens, neighbours sharing `stride`.

    Raises: InputError where the windows would not move on.
    """
    if room < 1 or stride < 0 or (length > room and stride >= room):
        raise InputError(
            f"{where}: {max(room, 0)} tokens of a row are left for {length} tokens of text, windows sharing {stride}; "
            "use longer rows"
        )
    return range(1) if length <= room else range(0, length - stride, room - stride)


def _cut(tokens: _Tokens, start: int, end: int) -> _Tokens:
    return _Tokens(tokens.ids[start:end], tokens.offsets[start:end])
