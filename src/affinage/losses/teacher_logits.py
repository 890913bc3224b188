"""Where a vocabulary loss has the teacher's logits from: its head, or the likeliest tokens that were kept of them."""

from math import log
from typing import Protocol

import torch
from torch import Tensor

from affinage.signals import Likeliest, Signals, in_blocks


class TeacherLogits(Protocol):
    """Vocabulary logits, made a chunk at a time."""

    bias: Tensor
    """(V,) float32: still to be added"""

    def logits(self, part: slice) -> Tensor:
        """(n, V) at some of the head's rows."""
        ...


class Projected:
    """As products: head inputs (N, H), the projection (V, H) and its bias (V,)."""

    def __init__(self, signals: Signals, dtype: torch.dtype) -> None:
        """Raises: ValueError where the head's inputs are missing."""
        if signals.head_input is None or signals.head_weight is None:
            raise ValueError("a loss needs the teacher's head_input and head_weight")
        self._inputs = in_blocks(signals.head_input.to(dtype))
        self._table = table = signals.head_weight.to(dtype)
        self.bias = table.new_zeros(len(table)) if signals.head_bias is None else signals.head_bias.float()

    def logits(self, part: slice) -> Tensor:
        return torch.mm(self._inputs[part], self._table.t())


class _Spread:
    """Of the likeliest tokens alone: all others share what is left evenly."""

    def __init__(self, likeliest: Likeliest, vocabulary: int) -> None:
        self._of, self.bias = likeliest, likeliest.logits.new_zeros(vocabulary)

    def logits(self, part: slice) -> Tensor:
        of, count = self._of, len(self.bias)
        each = of.rest[part] - of.temperature * log(count - of.ids.shape[1])
        return each[:, None].expand(-1, count).scatter(-1, of.ids[part], of.logits[part])


def teacher_logits(teacher: Signals, weight: Tensor, dtype: torch.dtype) -> TeacherLogits:
    """Of what the teacher gave. `weight` (V, H): the student's projection; `dtype`: the precision of products.

    Raises: ValueError where the teacher's head is missing.
    """
    return Projected(teacher, dtype) if teacher.likeliest is None else _Spread(teacher.likeliest, len(weight))
