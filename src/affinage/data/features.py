"""How the examples of a task become rows for the encoder, and the targets that training gives them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from affinage.data.encoding import (
    Row,
    encode_pairs,
    encode_questions,
    encode_texts,
    encode_windows,
    first_token_of_words,
    span_target,
)
from affinage.data.examples import (
    Example,
    MultiLabelExample,
    PairExample,
    RegressionExample,
    SpanExample,
    TextExample,
    TokenExample,
)
from affinage.data.words import join_words
from affinage.errors import InputError

IGNORED = -100
"""Target of a token that no loss may count; the value of `affinage.signals.IGNORED`, which would import torch."""

Target = int | float | tuple[int, int] | np.ndarray
"""What a row should give: a class; a number; first and last token of a span; (T,) int64, a class for each token or
IGNORED; or (C,) float32, 1 for each class that holds."""


@dataclass(frozen=True)
class Fitted:
    """How many examples of a set were longer than a row."""

    truncated: int
    """examples whose end the model does not see"""
    strided: int
    """examples cut into several overlapping windows"""


def stride_for(max_length: int) -> int:
    """Tokens that neighbouring windows share: a quarter of the row."""
    return max_length // 4


def encode(tokenizer: Tokenizer, examples: Sequence[Example], *, max_length: int, stride: int) -> list[Row]:
    """The rows of these examples (all of one kind), `Row.example` being an example's index.

    Texts and pairs give one row each, cut at `max_length`; sentences and questions as many windows as it takes.
    Raises: InputError naming the example that leaves no room for its text.
    """
    try:
        match examples[0] if examples else None:
            case None:
                return []
            case TextExample() | MultiLabelExample() | RegressionExample(second=None):
                return encode_texts(tokenizer, [texts_of(e)[0] for e in examples], max_length=max_length)
            case PairExample() | RegressionExample():
                pairs = [(first, second) for first, second in map(texts_of, examples)]
                return encode_pairs(tokenizer, pairs, max_length=max_length)
            case TokenExample():
                sentences = [texts_of(e)[0] for e in examples]
                return encode_windows(tokenizer, sentences, max_length=max_length, stride=stride)
            case SpanExample():
                questions, contexts = zip(*map(texts_of, examples), strict=True)
                where = [example.where for example in examples]
                return encode_questions(
                    tokenizer, questions, contexts, max_length=max_length, stride=stride, where=where
                )
    except InputError as error:
        source = _source(examples)
        raise InputError(f"{'' if str(error).startswith(source) else f'{source}: '}{error}") from None


def texts_of(example: Example) -> tuple[str, ...]:
    """What the model reads of an example: one text or two; the words of a sentence as they are written."""
    match example:
        case TextExample() | MultiLabelExample():
            return (example.text,)
        case RegressionExample(second=None):
            return (example.first,)
        case PairExample() | RegressionExample():
            return (example.first, str(example.second))
        case TokenExample():
            return (join_words(example.words)[0],)
        case SpanExample():
            return (example.question, example.context)


def fitted(rows: Sequence[Row]) -> Fitted:
    """How many examples these rows cut."""
    windows = np.bincount([row.example for row in rows]) if rows else np.zeros(0, np.int64)
    return Fitted(truncated=sum(row.truncated for row in rows), strided=int((windows > 1).sum()))


def targets(examples: Sequence[Example], rows: Sequence[Row], labels: Sequence[str]) -> list[Target]:
    """The target of every row.

    Tags: a word's class stands on the token that covers its first character, every other token is IGNORED; a word in
    two windows counts in both. Spans: the first answer that lies wholly in the window, else (0, 0), the <cls> token.
    """
    number = {label: i for i, label in enumerate(labels)}
    spans = {i: join_words(e.words)[1] for i, e in enumerate(examples) if isinstance(e, TokenExample)}
    found: list[Target] = []
    for row in rows:
        example = examples[row.example]
        match example:
            case TextExample() | PairExample():
                found.append(number[example.label])
            case MultiLabelExample():
                found.append(np.array([label in example.labels for label in labels], np.float32))
            case RegressionExample():
                found.append(example.value)
            case TokenExample():
                found.append(_token_target(row, spans[row.example], [number[tag] for tag in example.tags]))
            case SpanExample():
                places = (span_target(row, start, text) for text, start in example.answers)
                found.append(next((place for place in places if place != (0, 0)), (0, 0)))
    return found


def _token_target(row: Row, spans: Sequence[tuple[int, int]], tags: Sequence[int]) -> np.ndarray:
    """(T,) int64."""
    target = np.full(len(row.input_ids), IGNORED, np.int64)
    tokens = first_token_of_words(row, spans)
    inside = tokens >= 0
    # One piece may hold the beginnings of two words ("l'" + "a" never, but "..." + ")" does): the first word keeps it.
    at, first = np.unique(tokens[inside], return_index=True)
    target[at] = np.asarray(tags, np.int64)[inside][first]
    return target


def _source(examples: Sequence[Example]) -> str:
    return examples[0].where.rpartition(":")[0] or examples[0].where.rpartition("#")[0]
