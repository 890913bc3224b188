"""Factors on the heads and neurons that stay, so that each block gives nearly what it gave before the others went.

Kwon et al. 2022, arXiv:2204.09656, section 4.3: least squares, block by block from the first layer on.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.compression.pruning.cutting import head_size, linear_of
from affinage.models.encoder import forward_masked_lm
from affinage.models.layout import layers_of, layout_of
from affinage.signals import Batch

TOKENS = 2048
"""real tokens that the factors are fitted on"""
_LARGEST = 10.0
"""A block whose factors would leave [-10, 10] keeps its weights, as in the paper."""
_DAMP = 1e-3
"""pull towards factors of 1, as a share of the mean diagonal"""


class _Heard(Exception):
    """Ends a forward pass whose rest is not needed."""


@torch.no_grad()
def tune_(pruned: PreTrainedModel, whole: PreTrainedModel, batches: Sequence[Batch]) -> None:
    """Multiply the outgoing weights of every head and neuron of `pruned` by a factor, fitted on some of the batches.

    A block's target is what the norm after it reads in `whole`: its own output with what it is added to. Where norms
    come first and none comes last, nothing reads the last block's, which keeps its weights.
    """
    some, tokens = [], 0
    for batch in batches:
        if tokens < TOKENS:
            some.append(batch)
            tokens += int(batch.mask.sum())
    blocks = [(i, part) for i in range(len(layers_of(pruned))) for part in ("attention_output", "output")]
    blocks = [block for block in blocks if _norm(pruned, *block) is not None]
    targets = _targets(whole, blocks, some)
    for i, part in blocks:
        linear = linear_of(pruned, layers_of(pruned)[i], part)
        size = head_size(pruned, layers_of(pruned)[i]) if part == "attention_output" else 1
        units = linear.in_features // size
        square = torch.zeros(units, units, dtype=torch.float64)
        right = torch.zeros(units, dtype=torch.float64)
        weight = linear.weight.double()
        products = weight.t() @ weight
        for (given, read), target in zip(_listen(pruned, i, part, some), targets[i, part], strict=True):
            given, missing = given.double(), target.double() - read.double()
            square += (given.t() @ given * products).view(units, size, units, size).sum((1, 3))
            right += (given * (missing @ weight)).sum(0).view(units, size).sum(1)
        factors = factors_of(square, right)
        if factors.abs().max() <= _LARGEST:
            linear.weight.mul_(factors.repeat_interleave(size).to(linear.weight.dtype))


def factors_of(square: Tensor, right: Tensor) -> Tensor:
    """(n,) f that minimises |Z (f - 1) - r|^2 + d |f - 1|^2, of Z^T Z (n, n) and Z^T r (n,); all 1 where Z is 0."""
    damp = _DAMP * square.diagonal().mean()
    if damp == 0:
        return torch.ones_like(right)
    more: Tensor = torch.linalg.solve(square + damp * torch.eye(len(right), dtype=square.dtype), right)
    return 1 + more


def _targets(
    model: PreTrainedModel, blocks: Sequence[tuple[int, str]], batches: Sequence[Batch]
) -> dict[tuple[int, str], list[Tensor]]:
    """For each block and batch, what its LayerNorm reads (n, H) at real tokens."""
    heard: dict[tuple[int, str], list[Tensor]] = {block: [] for block in blocks}
    with ExitStack() as hooks:
        for block in blocks:
            hooks.enter_context(_hooked(_norm(model, *block), heard[block].append))
        for batch in batches:
            forward_masked_lm(model, batch, frozenset())
    return {block: [x[b.mask] for x, b in zip(heard[block], batches, strict=True)] for block in blocks}


def _listen(model: PreTrainedModel, i: int, part: str, batches: Sequence[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
    """For each batch what a block's last linear map (n, inputs) and its LayerNorm (n, H) read at real tokens."""
    heard: dict[str, Tensor] = {}

    def last(x: Tensor) -> None:
        heard["read"] = x
        raise _Heard

    linear = linear_of(model, layers_of(model)[i], part)
    with _hooked(linear, lambda x: heard.update(given=x)), _hooked(_norm(model, i, part), last):
        for batch in batches:
            with suppress(_Heard):
                forward_masked_lm(model, batch, frozenset())
            yield heard["given"][batch.mask], heard["read"][batch.mask]


def _norm(model: PreTrainedModel, i: int, part: str) -> nn.Module | None:
    """What reads a block's output with what it is added to: its own norm; where norms come first, the next block's."""
    layout, layers = layout_of(model.config), layers_of(model)
    of_attention = part == "attention_output"
    if layout.norms_first:
        i, of_attention = (i, False) if of_attention else (i + 1, True)
    if i == len(layers):
        return model.get_submodule(layout.final_norm) if layout.final_norm else None
    return layers[i].get_submodule(layout.attention_norm if of_attention else layout.output_norm)


@contextmanager
def _hooked(module: nn.Module | None, note: Callable[[Tensor], None]) -> Iterator[None]:
    def hear(module: nn.Module, args: tuple[Any, ...]) -> None:
        note(args[0])

    assert module is not None
    hook = module.register_forward_pre_hook(hear)
    try:
        yield
    finally:
        hook.remove()
