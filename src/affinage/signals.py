"""What one forward pass takes (Batch) and exposes (Signals).

Letters: B rows, T tokens a row, H width, L layers, A heads, D head size, V vocabulary, C classes, N selected tokens.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

IGNORED = -100
"""Label of a position that no loss may count (transformers' convention)."""

_BLOCK = 64

Head = Literal["classes", "multi_label", "regression", "token", "span"]
"""What a task's head gives: one class, any number of labels, a value; a tag for each token; start and end of a span."""


def in_blocks(rows: Tensor) -> Tensor:
    """(n, …) on a CPU: with rows of zeros behind, up to a multiple of 64; elsewhere as it is.

    oneDNN compiles a kernel for every new shape of a product, and keeps it: where the number of rows changes from step
    to step, that takes longer than the products, and ever more memory.
    """
    missing = -len(rows) % _BLOCK
    if rows.device.type != "cpu" or not missing:
        return rows
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])])


@dataclass(frozen=True)
class Batch:
    """Rows of tokens as every encoder takes them."""

    input_ids: Tensor
    """(B, T) int64"""
    mask: Tensor
    """(B, T) bool, True on real tokens, special tokens included; False on padding"""
    segments: Tensor | None = None
    """(B, T) int64: which text of a packed row a token belongs to, 1, 2, …; 0 on padding. None: one text a row"""
    token_type_ids: Tensor | None = None
    """(B, T) int64: sentence A or B, where the architecture knows them"""
    labels: Tensor | None = None
    """(B, T) int64 with IGNORED; for whole rows (B,) class, (B, 2) first and last token of a span, or float with NaN
    for none: (B,) value, (B, C) 0 or 1"""
    context: Tensor | None = None
    """(B, T) bool: tokens of the text that an answer is looked for in. None: every real token"""
    follows: Tensor | None = None
    """(B,) int64 of rows of two texts: 0 where the second follows the first, 1 where it does not, or IGNORED"""
    selected: Tensor | None = None
    """(B, T) bool: positions whose vocabulary head is computed (N of them, in row order). None: every real token"""

    @property
    def head_positions(self) -> Tensor:
        """(B, T) bool: the positions behind `Signals.head_input`."""
        return self.mask if self.selected is None else self.selected

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                moved[field.name] = value.to(device, non_blocking=True)
        return replace(self, **moved)


@dataclass(frozen=True)
class Likeliest:
    """The k highest of V logits at N positions, and all others taken together, at temperature tau."""

    ids: Tensor
    """(N, k) int64"""
    logits: Tensor
    """(N, k) float32"""
    rest: Tensor
    """(N,) float32: tau * log of the sum of exp(logit / tau) over the V - k others"""
    temperature: float


@dataclass(frozen=True)
class Signals:
    """What a model exposed in one forward pass; None = nobody asked for it."""

    logits: Tensor | None = None
    """(B, C) or, for small heads, (B, T, C)"""
    next_sentence: Tensor | None = None
    """(B, 2): logits of that the second text of a row follows the first, and that it does not"""
    head_input: Tensor | None = None
    """(N, H): what enters the vocabulary projection, at `Batch.head_positions` only"""
    head_weight: Tensor | None = None
    """(V, H): the vocabulary projection"""
    head_bias: Tensor | None = None
    """(V,): its bias"""
    likeliest: Likeliest | None = None
    """of the vocabulary logits at `Batch.head_positions`, in place of what makes all of them"""
    hidden_states: tuple[Tensor, ...] | None = None
    """L+1 x (B, T, H); index 0 is the embedding output"""
    last_hidden_state: Tensor | None = None
    """(B, T, H)"""
    queries: tuple[Tensor, ...] | None = None
    """L x (B, A, T, D), as are `keys` and `values`: what attention compares and mixes"""
    keys: tuple[Tensor, ...] | None = None
    values: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class Sum:
    """A loss before averaging: the trainer divides by counts added over accumulation steps and processes."""

    total: Tensor
    """() float: sum over the counted places"""
    count: Tensor
    """() number of places counted"""

    @property
    def mean(self) -> Tensor:
        """() total / count; 0 where nothing was counted."""
        return self.total / self.count.clamp(min=1)
