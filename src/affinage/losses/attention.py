"""Losses between what the attention heads of teacher and student look at."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor

from affinage.errors import InputError
from affinage.losses.base import DistillationLoss, Shape, distillation_losses
from affinage.losses.layers import check_uniform, uniform_step
from affinage.signals import Batch, Signals, Sum


def _scores(signals: Signals, layer: int) -> Tensor:
    """(B, A, T, T) float32 q k^T / sqrt(D) of a layer, before softmax and mask."""
    if signals.queries is None or signals.keys is None:
        raise ValueError("a loss on attention scores needs queries and keys of student and teacher")
    queries, keys = signals.queries[layer], signals.keys[layer]
    return (queries @ keys.transpose(-1, -2)).float() / sqrt(queries.shape[-1])


def seen_tokens(batch: Batch) -> Tensor:
    """(B, T, T) bool: which tokens (last) a real token looks at: those of its own text."""
    texts = batch.mask.long() if batch.segments is None else batch.segments
    return (texts[:, :, None] == texts[:, None, :]) & batch.mask[:, :, None]


@distillation_losses.register(
    "attention_score_mse", source="Jiao et al. 2020 (TinyBERT), arXiv:1909.10351, equation 7, scores before softmax"
)
@dataclass(frozen=True)
class AttentionScoreMSE:
    """Squared distance of attention scores before softmax, head by head; 0 where they are the same.

    Student layer m is compared with teacher layer m * N / M; the squares are averaged over heads and the tokens of the
    same text, then over real tokens, and added over layers. The released code averages over padding, too, whose scores
    it sets to 0: short rows then count for less.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"queries", "keys"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset({"queries", "keys"})

    def positions(self, batch: Batch) -> Tensor:
        return batch.mask

    def build(self, student: Shape, teacher: Shape) -> DistillationLoss:
        """Itself. Raises: InputError where depths or numbers of heads do not fit."""
        check_uniform("attention_score_mse", student, teacher)
        if student.heads != teacher.heads:
            raise InputError(
                f"loss 'attention_score_mse' compares head with head: the student has {student.heads}, the teacher "
                f"{teacher.heads}; set student.num_attention_heads={teacher.heads}"
            )
        return self

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        if student.queries is None or teacher.queries is None:
            raise ValueError("attention_score_mse needs queries and keys of student and teacher")
        seen = seen_tokens(batch)
        share = 1 / (student.queries[0].shape[1] * seen.sum(-1).clamp(min=1))
        step = uniform_step(len(student.queries), len(teacher.queries))
        total = torch.zeros((), device=batch.mask.device)
        for layer in range(len(student.queries)):
            apart = _scores(student, layer) - _scores(teacher, layer * step + step - 1).detach()
            squares = apart.masked_fill(~seen[:, None], 0).square()
            total = total + (squares.sum((1, 3)) * share).sum()
        return Sum(total, batch.mask.sum())
