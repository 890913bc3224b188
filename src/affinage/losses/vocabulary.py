"""How a loss on vocabulary logits never holds all of them: chunks of tokens, gradients at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from affinage.signals import Batch, Signals

CHUNK_ENTRIES = 8_000_000
"""Logits held at a time (tokens x vocabulary): 32 MB in float32."""

TokenLoss = Callable[[Tensor, Tensor], Tensor]
"""(n, V) student logits, (n, …) targets of the same tokens -> () sum over the tokens"""


def selected_rows(positions: Tensor, batch: Batch) -> Tensor:
    """Indices (n,) into the N head rows of `Signals.head_input` for the places `positions` (B, T) marks.

    Raises: ValueError where a place has no head row: the objective selects the union of all losses' positions.
    """
    head = batch.head_positions
    if bool((positions & ~head).any()):
        raise ValueError("a loss asks for vocabulary logits where the forward pass computed none")
    return positions[head].nonzero(as_tuple=True)[0]


def chunked_loss(student: Signals, rows: Tensor, target: Callable[[Tensor], Tensor], token_loss: TokenLoss) -> Tensor:
    """() sum of `token_loss` over the head rows `rows` (n,).

    `target(chunk_of_rows)` gives what the loss compares with, without gradient. Equal in value and gradient to the
    plain formula on all (n, V) logits; the memory is that of one chunk, and nothing is recomputed in the backward pass.
    """
    if student.head_input is None or student.head_weight is None:
        raise ValueError("a vocabulary loss needs head_input and head_weight")
    bias = student.head_bias
    if bias is None:
        bias = student.head_weight.new_zeros(student.head_weight.shape[0])
    total: Tensor = _Chunked.apply(  # type: ignore[no-untyped-call]
        student.head_input[rows], student.head_weight, bias, rows, target, token_loss
    )
    return total


def logits_of(signals: Signals, rows: Tensor) -> Tensor:
    """(n, V) vocabulary logits of the head rows `rows`."""
    assert signals.head_input is not None and signals.head_weight is not None
    return linear(signals.head_input[rows], signals.head_weight, signals.head_bias)


class _Chunked(torch.autograd.Function):
    """Forward computes the sum and its gradients chunk by chunk; backward scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        rows: Tensor,
        target: Callable[[Tensor], Tensor],
        token_loss: TokenLoss,
    ) -> Tensor:
        wanted = any(ctx.needs_input_grad[:3])
        total = hidden.new_zeros((), dtype=torch.float32)
        grad_hidden = torch.zeros_like(hidden) if wanted else None
        grad_weight = torch.zeros_like(weight) if wanted else None
        grad_bias = torch.zeros_like(bias) if wanted else None
        step = max(1, CHUNK_ENTRIES // weight.shape[0])
        for start in range(0, len(rows), step):
            stop = start + step
            with torch.no_grad():
                targets = target(rows[start:stop])
                logits = linear(hidden[start:stop], weight, bias)
            if not wanted:
                total += token_loss(logits, targets)
                continue
            # Only the step from logits to loss goes through autograd: its graph is freed with the chunk.
            logits = logits.detach().requires_grad_()
            with torch.enable_grad():
                value = token_loss(logits, targets)
            (gradient,) = torch.autograd.grad(value, logits)
            total += value.detach()
            assert grad_hidden is not None and grad_weight is not None and grad_bias is not None
            with torch.no_grad():
                grad_hidden[start:stop] = torch.mm(gradient, weight.to(gradient.dtype))
                grad_weight += torch.mm(gradient.t(), hidden[start:stop].to(gradient.dtype))
                grad_bias += gradient.sum(0)
        if grad_hidden is not None:
            assert grad_weight is not None and grad_bias is not None
            ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        scale = upstream[0]
        return *(scale.to(g.dtype) * g for g in ctx.saved_tensors), None, None, None
