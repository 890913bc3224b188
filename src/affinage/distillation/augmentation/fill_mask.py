"""What a masked language model would write in a word's place. Letters: B rows, T tokens, V vocabulary."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from affinage.data.encoding import Row, encode_texts, first_token_of_words
from affinage.data.pieces import pieces_of
from affinage.distillation.augmentation.words import is_word
from affinage.errors import InputError
from affinage.models.checkpoint import max_length
from affinage.models.encoder import forward_masked_lm
from affinage.signals import Batch

Ints = NDArray[np.int64]

_BATCH_TOKENS = 4096
"""Tokens of one forward pass, padding included."""
_WHOLE = 10**9


@dataclass(frozen=True)
class Masked:
    """A token of a text that is to be guessed."""

    row: Row
    """the whole text"""
    token: int
    """index in it"""


class FillMask:
    """A masked language model, asked for single tokens, many at a time.

    A row holds as much of the text to both sides of the masked token as fits; where `twice`, the same text stands
    behind it once more, unmasked, as the second text of a pair.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, row_length: int, twice: bool | None = None
    ) -> None:
        """`twice` None: where the architecture tells two texts apart (by token types), as BERT does.

        Raises: InputError where the tokenizer has no mask token, a row no room for text, or the architecture no pairs.
        """
        pairs = getattr(model.config, "type_vocab_size", 0) > 1
        if tokenizer.mask_token_id is None:
            raise InputError("the model's tokenizer has no mask token: it cannot guess words")
        if twice and not pairs:
            raise InputError(f"architecture '{model.config.model_type}' knows no pairs of texts: leave --pairs out")
        self.twice = pairs if twice is None else twice
        self._model, self._tokenizer = model, tokenizer
        row_length = min(row_length, max_length(model.config))
        head, tail = _frame(self.rows(["a"])[0])
        self._room = row_length - len(head) - len(tail)
        if self.twice:
            self._room = (self._room - len(tail)) // 2
        if self._room < 1:
            raise InputError(f"rows of {row_length} tokens have room for special tokens only; take longer ones")
        self._words = {i: piece for i, piece in pieces_of(tokenizer).items() if is_word(piece.text)}
        self._barred = torch.ones(2, model.config.vocab_size, dtype=torch.bool, device=model.device)
        for i, piece in self._words.items():
            self._barred[int(piece.spaced), i] = False

    def rows(self, texts: Sequence[str]) -> list[Row]:
        """The texts as tokens, whole."""
        return encode_texts(self._tokenizer.backend_tokenizer, texts, max_length=_WHOLE)

    def plain(self, row: Row, spans: Sequence[tuple[int, int]]) -> list[bool]:
        """For each word, given by its characters, whether it is text, and not a `<mask>` or the like."""
        special = set(self._tokenizer.all_special_ids) - {self._tokenizer.unk_token_id}
        tokens = first_token_of_words(row, spans).tolist()
        return [token < 0 or int(row.input_ids[token]) not in special for token in tokens]

    def whole_words(self, row: Row, spans: Sequence[tuple[int, int]]) -> list[int | None]:
        """For each word the token that it is; None where it is of several, or part of one."""
        found: list[int | None] = []
        for token, span in zip(first_token_of_words(row, spans).tolist(), spans, strict=True):
            whole = token >= 0 and tuple(row.offsets[token]) == span and int(row.input_ids[token]) in self._words
            found.append(token if whole else None)
        return found

    def candidates(self, masked: Sequence[Masked], count: int) -> list[list[str]]:
        """For each masked token the `count` likeliest words, likeliest first.

        They stand as the masked one does: behind a space, or (`l'école`) behind none.
        """
        found: list[list[str]] = [[] for _ in masked]
        inputs = [self._input(m) for m in masked]
        for chosen in _batches([len(ids) for ids, _, _ in inputs]):
            originals = [int(masked[i].row.input_ids[masked[i].token]) for i in chosen]
            barred = self._barred[[int(self._words[token].spaced) for token in originals]]
            logits = self._logits([inputs[i] for i in chosen]).masked_fill(barred, -torch.inf)
            values, ids = logits.topk(min(count, logits.shape[1]))
            for i, row, known in zip(chosen, ids.tolist(), values.isfinite().tolist(), strict=True):
                found[i] = [self._words[token].text for token, is_known in zip(row, known, strict=True) if is_known]
        return found

    def _input(self, masked: Masked) -> tuple[Ints, Ints, int]:
        """(T,) ids and token types of the row that asks, and the index of its mask token."""
        row = masked.row
        head, tail = _frame(row)
        text = row.input_ids[len(head) : len(row.input_ids) - len(tail)]
        at = masked.token - len(head)
        begin = max(0, min(at - self._room // 2, len(text) - self._room))
        seen = text[begin : begin + self._room]
        asked = seen.copy()
        asked[at - begin] = self._tokenizer.mask_token_id
        first = np.concatenate([head, asked, tail])
        second = np.concatenate([seen, tail]) if self.twice else seen[:0]
        types = np.concatenate([np.zeros_like(first), np.ones_like(second)])
        return np.concatenate([first, second]), types, len(head) + at - begin

    def _logits(self, inputs: Sequence[tuple[Ints, Ints, int]]) -> Tensor:
        """(B, V) at the mask tokens."""
        ids, types, places = zip(*inputs, strict=True)
        lengths = torch.tensor([len(row) for row in ids])
        input_ids = _padded(ids, self._tokenizer.pad_token_id)
        columns = torch.arange(input_ids.shape[1])
        batch = Batch(
            input_ids=input_ids,
            mask=columns < lengths[:, None],
            token_type_ids=_padded(types, 0) if self.twice else None,
            selected=columns == torch.tensor(places)[:, None],
        ).to(self._model.device)
        with torch.inference_mode():
            signals = forward_masked_lm(self._model, batch, frozenset({"head"}))
            assert signals.head_input is not None and signals.head_weight is not None  # "head" was asked for
            return linear(signals.head_input, signals.head_weight, signals.head_bias).float()


def _frame(row: Row) -> tuple[Ints, Ints]:
    """The special tokens before and behind the one text of a row."""
    inside = np.flatnonzero(row.sequence_ids == 0)
    return row.input_ids[: inside[0]], row.input_ids[inside[-1] + 1 :]


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of rows of like length, the longest first."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _padded(rows: Sequence[Any], filler: int) -> Tensor:
    """(B, T) int64."""
    return pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True, padding_value=filler)
