"""Gates on heads and neurons: real factors on what they give. transformers 5 takes a `head_mask` and ignores it.

Letters: N examples, B of them in a batch, A heads and F neurons of a layer, L layers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources
from affinage.compression.pruning.cutting import head_counts, linear_of, neuron_counts
from affinage.errors import InputError
from affinage.models.layout import layers_of


@contextmanager
def gated(
    model: PreTrainedModel, *, heads: Sequence[Tensor] | None = None, neurons: Sequence[Tensor] | None = None
) -> Iterator[None]:
    """While it lasts, each head's mixed values and each neuron's activation are multiplied by their gates.

    `heads[i]`: (A,) or (B, A), of layer i; `neurons[i]`: (F,) or (B, F). None: all open.
    """
    hooks = []
    for part, gates in (("attention_output", heads), ("output", neurons)):
        if gates is not None:
            for layer, gate in zip(layers_of(model), gates, strict=True):
                hooks.append(linear_of(model, layer, part).register_forward_pre_hook(_closing(gate)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _closing(gate: Tensor) -> Callable[[nn.Module, Any], tuple[Tensor]]:
    def close(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        given = args[0]
        wide = gate.repeat_interleave(given.shape[-1] // gate.shape[-1], dim=-1)
        return (given * (wide if gate.ndim == 1 else wide[:, None]),)

    return close


@dataclass(frozen=True)
class Sensitivity:
    """Derivatives of each example's loss with respect to its gates, all open."""

    heads: tuple[Tensor, ...]
    """L x (N, A)"""
    neurons: tuple[Tensor, ...]
    """L x (N, F); empty where nobody asked"""


def sensitivity(model: PreTrainedModel, resources: Resources, *, neurons: bool = False) -> Sensitivity:
    """dLoss_n / dgate at gates of 1, for every example n of the calibration batches.

    Each example of a batch has gates of its own, so that one backward pass gives the derivatives one by one: that of
    the batch's mean loss times B. Where examples count by their tokens, that weighs them by these.

    Raises: InputError where there is nothing to calibrate with.
    """
    batches, loss = resources.calibration, resources.loss
    if not batches or loss is None:
        raise InputError("this method weighs parts by gradients: it needs examples with labels; give --task and --data")
    depth = len(layers_of(model))
    found: list[list[Tensor]] = []
    model.eval()
    for batch in batches:
        rows, device = batch.input_ids.shape[0], batch.input_ids.device
        counts = head_counts(model) + (neuron_counts(model) if neurons else [])
        gates = [torch.ones(rows, count, device=device, requires_grad=True) for count in counts]
        of_heads, of_neurons = gates[:depth], gates[depth:]
        with torch.enable_grad(), gated(model, heads=of_heads, neurons=of_neurons or None):
            value = loss(model, batch)
        gradients = torch.autograd.grad(value, gates)
        found.append([gradient * rows for gradient in gradients])
    joined = tuple(torch.cat(parts) for parts in zip(*found, strict=True))
    return Sensitivity(joined[:depth], joined[depth:])
