"""Losses on vocabulary logits, several at once: the (n, V) logits are made in chunks, once for all of them."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import linear

from affinage.signals import Batch, Signals, Sum

CHUNK_ENTRIES = 8_000_000
"""Logits held at a time (tokens x vocabulary): 32 MB in float32."""
CACHED_ROWS = 64
"""Tokens of a chunk that a CPU takes through the losses at a time, so that what they work on stays in its caches."""


class VocabularyLoss:
    """A loss between vocabulary logits and what they should be, summed over tokens. Subclasses give `of_logits`, or
    `value` alone, whose gradient is then autograd's.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"head"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset()

    def positions(self, batch: Batch) -> Tensor:
        """(B, T) bool: the places this loss sums over."""
        raise NotImplementedError

    def value(self, student: Tensor, teacher: Tensor | None, labels: Tensor | None) -> Tensor:
        """() sum over n tokens from float32 logits (n, V) and labels (n,); `teacher` is None unless it is needed."""
        raise NotImplementedError

    def of_logits(self, student: Tensor, teacher: Tensor | None, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """`value` and its gradient (n, V) by the student's logits, a new tensor; nothing given is changed."""
        logits = student.detach().requires_grad_()
        with torch.enable_grad():
            value = self.value(logits, teacher, labels)
        (gradient,) = torch.autograd.grad(value, logits)
        return value.detach(), gradient

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """The sum over `positions` and their number; the gradient reaches the student only."""
        total, _ = vocabulary_sums((self,), student, teacher, batch, torch.ones(1))
        return Sum(total, self.positions(batch).sum())


def vocabulary_sums(
    losses: Sequence[VocabularyLoss], student: Signals, teacher: Signals, batch: Batch, scales: Tensor
) -> tuple[Tensor, Tensor]:
    """() sum of scales[k] * total[k], with gradient, and the totals (K,) without.

    Equal in value and gradient to the plain formulas on all (n, V) logits, but a chunk of these exists at a time, each
    is computed once for all losses, and nothing is recomputed in the backward pass: `scales` must therefore be known.

    Raises: ValueError where a signal is missing, or a loss asks for a place that has no head row: the objective selects
    the union of all losses' positions.
    """
    if student.head_input is None or student.head_weight is None:
        raise ValueError("a vocabulary loss needs head_input and head_weight")
    bias = student.head_bias
    if bias is None:
        bias = student.head_weight.new_zeros(student.head_weight.shape[0])
    head = batch.head_positions
    places = [loss.positions(batch) for loss in losses]
    if any(bool((positions & ~head).any()) for positions in places):
        raise ValueError("a loss asks for vocabulary logits where the forward pass computed none")
    rows = torch.stack([positions[head] for positions in places])
    labels = None if batch.labels is None else batch.labels[head]
    weighted, totals = _Sums.apply(  # type: ignore[no-untyped-call]
        student.head_input, student.head_weight, bias, losses, rows, teacher, labels, scales
    )
    return weighted, totals


class _Sums(torch.autograd.Function):
    """Forward computes the sums and the gradient of the weighted one, chunk by chunk; backward scales it."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        losses: Sequence[VocabularyLoss],
        rows: Tensor,
        teacher: Signals,
        labels: Tensor | None,
        scales: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """`rows`: (K, N) bool, which head rows each loss takes; N head rows in `hidden`, `teacher` and `labels`."""
        wanted = any(ctx.needs_input_grad[:3])
        totals = torch.zeros(len(losses), dtype=torch.float32, device=hidden.device)
        scales = scales.to(totals)
        grads = tuple(torch.zeros_like(t) for t in (hidden, weight, bias)) if wanted else ()
        step = max(1, CHUNK_ENTRIES // weight.shape[0])
        few = CACHED_ROWS if hidden.device.type == "cpu" else step
        for start in range(0, len(hidden), step):
            part = slice(start, start + step)
            if not bool(rows[:, part].any()):
                continue
            ours = linear(hidden[part], weight, bias).float()
            theirs = None
            if any("head" in loss.teacher_needs for loss in losses):
                theirs = _logits(teacher, part)
            for row in range(0, len(ours), few):
                piece = slice(row, row + few)
                slope = _slope(
                    losses,
                    rows[:, part][:, piece],
                    ours[piece],
                    None if theirs is None else theirs[piece],
                    None if labels is None else labels[part][piece],
                    scales,
                    totals,
                    wanted=wanted,
                )
                if slope is not None:
                    ours[piece] = slope
            if wanted:
                grads[0][part] = torch.mm(ours, weight.to(ours.dtype))
                grads[1].add_(torch.mm(ours.t(), hidden[part].to(ours.dtype)))
                grads[2].add_(ours.sum(0))
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(totals)
        return (scales * totals).sum(), totals

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        scale = upstream[0]
        return *(scale.to(g.dtype) * g for g in ctx.saved_tensors), None, None, None, None, None


def _slope(
    losses: Sequence[VocabularyLoss],
    rows: Tensor,
    ours: Tensor,
    theirs: Tensor | None,
    labels: Tensor | None,
    scales: Tensor,
    totals: Tensor,
    *,
    wanted: bool,
) -> Tensor | None:
    """(n, V) gradient of sum scales[k] * total[k] by logits `ours` (n, V), None if not `wanted`; adds to `totals` (K,).

    `rows` (K, n) bool: which of the n each loss takes.
    """
    gradient: Tensor | None = None
    for k, loss in enumerate(losses):
        taken = rows[k]
        if not bool(taken.any()):
            continue
        whole = bool(taken.all())
        at = slice(None) if whole else taken.nonzero(as_tuple=True)[0]
        value, slope = loss.of_logits(
            ours[at], None if theirs is None else theirs[at], None if labels is None else labels[at]
        )
        totals[k] += value
        if not wanted:
            continue
        slope.mul_(scales[k])
        if gradient is None and whole:
            gradient = slope
            continue
        if gradient is None:
            gradient = torch.zeros_like(ours)
        gradient[at] += slope
    if gradient is None and wanted:
        return torch.zeros_like(ours)
    return gradient


def _logits(signals: Signals, rows: slice) -> Tensor:
    """(n, V) float32 vocabulary logits of some head rows."""
    if signals.head_input is None or signals.head_weight is None:
        raise ValueError("a loss needs the teacher's head_input and head_weight")
    return linear(signals.head_input[rows], signals.head_weight, signals.head_bias).float()
