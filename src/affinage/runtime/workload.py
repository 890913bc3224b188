"""What the benchmark gives models to compute: random token ids, the same for all, at set lengths or mixed ones."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

import numpy as np
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from affinage.errors import InputError
from affinage.runtime.forward import Ints

MIXED = "affinage/assets/benchmark/mixed_lengths.json"
"""where the committed list lies in the package"""
SHORTEST = 3
"""tokens of a row: one between the two special ones"""


class Padded(NamedTuple):
    """Rows of one batch, padded on the right to the longest."""

    input_ids: Ints
    """(B, T)"""
    attention_mask: Ints
    """(B, T)"""

    @property
    def tokens(self) -> int:
        """Real ones."""
        return int(self.attention_mask.sum())


@dataclass(frozen=True)
class Vocabulary:
    """What must be known of a model's vocabulary to make rows for it."""

    size: int
    special: frozenset[int]
    first: int | None
    last: int | None
    """ids of the special tokens at the ends of a text"""
    pad: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, config: PretrainedConfig) -> "Vocabulary":
        """The vocabulary of a model and its tokenizer."""
        cls_id, sep_id = tokenizer.cls_token_id, tokenizer.sep_token_id
        padding = () if config.pad_token_id is None else (int(config.pad_token_id),)  # RoBERTa counts positions by it
        return cls(
            size=int(config.vocab_size),
            special=frozenset((*tokenizer.all_special_ids, *padding)),
            first=tokenizer.bos_token_id if cls_id is None else cls_id,
            last=tokenizer.eos_token_id if sep_id is None else sep_id,
            pad=tokenizer.pad_token_id,
        )

    def framed(self, ids: Ints) -> Ints:
        """The ids with this vocabulary's special tokens in the places of the first and the last."""
        row = ids.copy()
        if self.first is not None:
            row[0] = self.first
        if self.last is not None:
            row[-1] = self.last
        return row


def mixed_lengths() -> tuple[int, ...]:
    """The committed list of text lengths, in tokens."""
    return tuple(json.loads(_mixed_file())["lengths"])


def mixed_sha256() -> str:
    """sha256 of the committed list's file."""
    return hashlib.sha256(_mixed_file()).hexdigest()


def same_rows(lengths: Sequence[int], vocabularies: Sequence[Vocabulary], *, seed: int) -> list[list[Ints]]:
    """For every vocabulary, rows of these lengths: the same pieces at random, between its own special tokens.

    The pieces are ids that are an ordinary one in every vocabulary. Raises: InputError where there are none.
    """
    special = frozenset().union(*(v.special for v in vocabularies))
    pieces = np.array([i for i in range(min(v.size for v in vocabularies)) if i not in special], np.int64)
    if not pieces.size:
        raise InputError("these models' vocabularies share no ordinary token ids; benchmark them apart")
    generator = np.random.default_rng(seed)
    drawn = [generator.choice(pieces, size=length) for length in lengths]
    return [[vocabulary.framed(row) for row in drawn] for vocabulary in vocabularies]


def batches(rows: Sequence[Ints], *, size: int, pad: int) -> list[Padded]:
    """The rows in batches of `size`, longest first, so that little is padded."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    return [_padded([rows[i] for i in order[k : k + size]], pad) for k in range(0, len(order), size)]


def _padded(rows: Sequence[Ints], pad: int) -> Padded:
    shape = (len(rows), max(map(len, rows)))
    input_ids, attention_mask = np.full(shape, pad, np.int64), np.zeros(shape, np.int64)
    for i, row in enumerate(rows):
        input_ids[i, : len(row)] = row
        attention_mask[i, : len(row)] = 1
    return Padded(input_ids, attention_mask)


def _mixed_file() -> bytes:
    return (resources.files("affinage.assets") / "benchmark" / "mixed_lengths.json").read_bytes()
