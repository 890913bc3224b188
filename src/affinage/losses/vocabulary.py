"""Losses on vocabulary logits, several at once: the (n, V) logits are made in chunks, once for all of them."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affinage.losses.teacher_logits import teacher_logits
from affinage.signals import Batch, Signals, Sum, in_blocks

CHUNK_ENTRIES = 8_000_000
"""Logits held at a time (tokens x vocabulary), each of teacher and student: 32 MB in float32."""
CACHED_ROWS = 16
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
        """`value` and its gradient (n, V) by the student's logits, a new tensor; logits given may be overwritten."""
        logits = student.detach().requires_grad_()
        with torch.enable_grad():
            value = self.value(logits, teacher, labels)
        (gradient,) = torch.autograd.grad(value, logits)
        return value.detach(), gradient

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """The sum over `positions` and their number; the gradient reaches the student only."""
        total, _ = vocabulary_sums((self,), student, teacher, batch, torch.ones(1))
        return Sum(total, self.positions(batch).sum())


@runtime_checkable
class OnePass(Protocol):
    """A vocabulary loss with a kernel of its own."""

    def in_one_pass(
        self, student: Tensor, teacher: Tensor, biases: tuple[Tensor, Tensor], scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(n,) its values at logits (n, V) that still lack their `biases` (V,), and (n, V) `scale` () times its
        gradient by the student's, in the precision of the logits given.
        """
        ...


def vocabulary_sums(
    losses: Sequence[VocabularyLoss],
    student: Signals,
    teacher: Signals,
    batch: Batch,
    scales: Tensor,
    *,
    one_pass: bool = False,
) -> tuple[Tensor, Tensor]:
    """() sum of scales[k] * total[k], with gradient, and the totals (K,) without. `one_pass`: kernels are compiled.

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
        student.head_input, student.head_weight, bias, losses, rows, teacher, labels, scales, one_pass
    )
    return weighted, totals


class _Sums(torch.autograd.Function):
    """Forward computes the sums and the gradient of the weighted one, chunk by chunk; backward scales it.

    Products are computed in the precision of autocast where it is on; what is done to logits is done in float32.
    """

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
        one_pass: bool,
    ) -> tuple[Tensor, Tensor]:
        """`rows`: (K, N) bool, which head rows each loss takes; N head rows in `hidden`, `teacher` and `labels`."""
        wanted = any(ctx.needs_input_grad[:3])
        totals = torch.zeros(len(losses), dtype=torch.float32, device=hidden.device)
        scales = scales.to(totals)
        grads = tuple(torch.zeros_like(t) for t in (hidden, weight, bias)) if wanted else ()
        step = max(1, CHUNK_ENTRIES // weight.shape[0])
        taken = rows.cpu().numpy()
        kind = hidden.device.type
        # Cast once: autocast would cast the projection again for every chunk.
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        inputs, table = in_blocks(hidden.detach().to(dtype)), weight.detach().to(dtype)
        theirs = (
            teacher_logits(teacher, weight, dtype) if any("head" in loss.teacher_needs for loss in losses) else None
        )
        biases = (bias.detach().float(), None if theirs is None else theirs.bias)
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(hidden), step):
                part = slice(start, start + step)
                if not taken[:, part].any():
                    continue
                logits = torch.mm(inputs[part], table.t())
                others = None if theirs is None else theirs.logits(part)
                told = None if labels is None else labels[part]
                _slope_(
                    losses,
                    taken[:, part],
                    logits,
                    others,
                    told,
                    biases,
                    scales,
                    totals,
                    wanted=wanted,
                    one_pass=one_pass and wanted,
                )
                if wanted:
                    grads[0][part] = torch.mm(logits, table)[: len(hidden) - start]
                    grads[1].add_(torch.mm(logits.t(), inputs[part]))
                    # As a product: torch sums columns of bfloat16 many times slower.
                    grads[2].add_(torch.mm(logits.new_ones(1, len(logits)), logits)[0])
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(totals)
        return (scales * totals).sum(), totals

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        scale, grads = upstream[0], ctx.saved_tensors
        if scale.device.type != "cpu" or scale != 1:  # asking another device would wait for it
            grads = tuple(scale.to(g.dtype) * g for g in grads)
        return *grads, None, None, None, None, None, None


def _slope_(
    losses: Sequence[VocabularyLoss],
    taken: NDArray[np.bool_],
    ours: Tensor,
    theirs: Tensor | None,
    labels: Tensor | None,
    biases: tuple[Tensor, Tensor | None],
    scales: Tensor,
    totals: Tensor,
    *,
    wanted: bool,
    one_pass: bool,
) -> None:
    """Put the gradient of sum scales[k] * total[k] by logits `ours` in their place; adds to `totals` (K,).

    `taken` (K, n): which of the first n rows each loss takes; rows behind these get 0. `biases` (V,) in float32 are
    still to be added to logits.
    """
    whole = [k for k in range(len(losses)) if taken[k].all()]
    count = taken.shape[1]
    few = CACHED_ROWS if ours.device.type == "cpu" else count

    def of_rows(k: int, rows: slice | Tensor) -> Tensor | None:
        value, slope = losses[k].of_logits(
            _biased(ours[rows], biases[0]),
            None if theirs is None or "head" not in losses[k].teacher_needs else _biased(theirs[rows], biases[1]),
            None if labels is None else labels[rows],
        )
        totals[k] += value
        return slope.mul_(scales[k]) if wanted else None

    # Losses on some of the rows see the logits before these are overwritten.
    parts: list[tuple[Tensor, Tensor | None]] = []
    for k in range(len(losses)):
        if k not in whole and taken[k].any():
            places = torch.from_numpy(taken[k].nonzero()[0]).to(ours.device)
            parts += [(rows, of_rows(k, rows)) for rows in places.split(few)]
    if one_pass and len(whole) == 1 and isinstance(loss := losses[whole[0]], OnePass) and theirs is not None:
        assert biases[1] is not None
        values, gradient = loss.in_one_pass(ours, theirs, (biases[0], biases[1]), scales[whole[0]])
        totals[whole[0]] += values[:count].sum()
        ours.copy_(gradient)
        whole = []
    elif not whole and wanted:
        ours[:count] = 0
    ours[count:] = 0
    for start in range(0, count if whole else 0, few):
        piece = slice(start, min(start + few, count))
        slopes = [slope for k in whole if (slope := of_rows(k, piece)) is not None]
        if slopes:
            ours[piece] = torch.stack(slopes).sum(0) if len(slopes) > 1 else slopes[0]
    for rows, part in parts:
        if part is not None:
            ours.index_add_(0, rows, part.to(ours.dtype))


def _biased(logits: Tensor, bias: Tensor | None) -> Tensor:
    """(n, V) float32, a new tensor."""
    assert bias is not None
    return logits.to(torch.float32, copy=True).add_(bias)
