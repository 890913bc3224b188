"""One forward pass of a stock encoder with a vocabulary head: Batch in, Signals out, nothing computed in vain."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from affinage.models.layout import Layout, layout_of, position_offset, tensor_of, widths_of
from affinage.signals import Batch, Signals


def forward_masked_lm(model: PreTrainedModel, batch: Batch, needs: frozenset[str]) -> Signals:
    """The signals `needs` of a masked language model: "head", "hidden_states", "last_hidden_state", "queries", "keys",
    "values"; of one that has the head, "next_sentence".

    The vocabulary head is applied at `batch.head_positions` only, and stops before its projection: the (B, T, V)
    logits are never made. In packed rows a token sees its own text alone and positions restart with each text.
    """
    layout = layout_of(model.config)
    inputs = {"input_ids": batch.input_ids, "attention_mask": _attention_mask(model, batch)}
    if batch.segments is not None:
        inputs["position_ids"] = _position_ids(batch.segments, position_offset(model.config))
    if layout.token_type_embeddings is not None:
        types = batch.token_type_ids
        inputs["token_type_ids"] = torch.zeros_like(batch.input_ids) if types is None else types
    with_hidden = "hidden_states" in needs
    with _heads_heard(model, layout, needs) as heard:
        output = model.get_submodule(layout.base)(**inputs, output_hidden_states=with_hidden)
    last: Tensor = output.last_hidden_state
    signals = Signals(
        hidden_states=tuple(output.hidden_states) if with_hidden else None,
        last_hidden_state=last if "last_hidden_state" in needs else None,
    )
    parts: dict[str, Any] = {name: tuple(tensors) for name, tensors in heard.items()}
    signals = replace(signals, **parts)
    if "next_sentence" in needs and layout.next_sentence is not None:
        pooled = model.get_submodule(layout.next_sentence)(output.pooler_output)
        signals = replace(signals, next_sentence=pooled)
    return with_head(model, signals, last, batch) if "head" in needs else signals


def with_head(model: PreTrainedModel, signals: Signals, last: Tensor, batch: Batch) -> Signals:
    """The signals with the inputs of the vocabulary head that follow from last hidden states (B, T, H)."""
    layout = layout_of(model.config)
    return replace(
        signals,
        head_input=_head_transform(model, layout, last[batch.head_positions]),
        head_weight=tensor_of(model, layout.decoder),
        head_bias=tensor_of(model, layout.decoder, "bias"),
    )


@contextmanager
def _heads_heard(model: PreTrainedModel, layout: Layout, needs: frozenset[str]) -> Iterator[dict[str, list[Tensor]]]:
    """L x (B, A, T, D) outputs of the projections that `needs` names: no attention implementation gives them away."""
    paths = {"queries": layout.query, "keys": layout.key, "values": layout.value}
    heard: dict[str, list[Tensor]] = {name: [] for name in paths if name in needs}
    heads = widths_of(model.config)["num_attention_heads"]

    def hear(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _, __, out: heard[name].append(out.view(*out.shape[:-1], heads, -1).transpose(1, 2))

    hooks = [
        layer.get_submodule(paths[name]).register_forward_hook(hear(name))
        for name in heard
        for layer in model.get_submodule(layout.layers).children()
    ]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def _head_transform(model: PreTrainedModel, layout: Layout, hidden: Tensor) -> Tensor:
    """(N, H) -> (N, H): the vocabulary head up to its projection."""
    name = "gelu" if layout.head_activation is None else getattr(model.config, layout.head_activation)
    transformed: Tensor = model.get_submodule(layout.head_norm)(
        ACT2FN[name](model.get_submodule(layout.head_dense)(hidden))
    )
    return transformed


def _attention_mask(model: PreTrainedModel, batch: Batch) -> Tensor:
    """(B, T) for rows of one text; (B, 1, T, T) that keeps the texts of a packed row apart."""
    if batch.segments is None:
        return batch.mask.long()
    segments = batch.segments
    # Padding is segment 0 and sees padding: a row that may look at nothing would be NaN after the softmax.
    same: Tensor = (segments[:, :, None] == segments[:, None, :])[:, None]
    if model.config._attn_implementation == "sdpa":
        return same
    dtype = next(model.parameters()).dtype
    return torch.zeros_like(same, dtype=dtype).masked_fill(~same, torch.finfo(dtype).min)


def _position_ids(segments: Tensor, offset: int) -> Tensor:
    """(B, T) positions that restart at `offset` with each text of a packed row."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    first = torch.where(starts, index, torch.zeros_like(index)).cummax(dim=1).values
    return index - first + offset


def trainable_parameters(model: nn.Module) -> int:
    """Number of parameters that receive a gradient, tied ones counted once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
