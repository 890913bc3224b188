"""One forward pass of a stock encoder with a vocabulary head: Batch in, Signals out, nothing computed in vain."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from affinage.models.layout import layers_of, layout_of, position_offset, tensor_of, widths_of
from affinage.models.packed import NoCache, attention_mask, texts_kept_apart
from affinage.models.parts import Layout
from affinage.signals import Batch, Signals, in_blocks


def forward_masked_lm(
    model: PreTrainedModel, batch: Batch, needs: frozenset[str], *, few_shapes: bool = False
) -> Signals:
    """The signals `needs` of a masked language model: "head", "hidden_states", "last_hidden_state", "queries", "keys",
    "values"; of one that has the head, "next_sentence".

    The vocabulary head is applied at `batch.head_positions` only, and stops before its projection: the (B, T, V)
    logits are never made. In packed rows a token sees its own text alone and positions restart with each text.
    `few_shapes`: its transform also computes rows of zeros (`signals.in_blocks`), which are cut off again.
    """
    layout = layout_of(model.config)
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": attention_mask(model, batch)}
    if batch.segments is not None:
        inputs["position_ids"] = _position_ids(batch.segments, position_offset(model.config))
    if layout.token_type_embeddings is not None:
        types = batch.token_type_ids
        inputs["token_type_ids"] = torch.zeros_like(batch.input_ids) if types is None else types
    if layout.keeps_cache:
        inputs["cache"] = NoCache()
    with_hidden = "hidden_states" in needs
    with heads_heard(model, layout, needs) as heard, texts_kept_apart(model, batch):
        output = model.get_submodule(layout.base)(**inputs, output_hidden_states=with_hidden)
    last: Tensor = output.last_hidden_state
    signals = Signals(
        hidden_states=tuple(output.hidden_states) if with_hidden else None,
        last_hidden_state=last if "last_hidden_state" in needs else None,
    )
    parts: dict[str, Any] = {name: tuple(tensors) for name, tensors in heard.items()}
    signals = replace(signals, **parts)
    if "next_sentence" in needs and layout.next_sentence:
        pooled = model.get_submodule(layout.next_sentence)(output.pooler_output)
        signals = replace(signals, next_sentence=pooled)
    return with_head(model, signals, last, batch, few_shapes=few_shapes) if "head" in needs else signals


def with_head(
    model: PreTrainedModel, signals: Signals, last: Tensor, batch: Batch, *, few_shapes: bool = False
) -> Signals:
    """The signals with the inputs of the vocabulary head that follow from last hidden states (B, T, H)."""
    layout = layout_of(model.config)
    return replace(
        signals,
        head_input=head_transform(model, layout, last[batch.head_positions], few_shapes=few_shapes),
        head_weight=_projection(model, layout),
        head_bias=_head_bias(model, layout),
    )


@contextmanager
def heads_heard(model: PreTrainedModel, layout: Layout, needs: frozenset[str]) -> Iterator[dict[str, list[Tensor]]]:
    """L x (B, A, T, D) outputs of the projections that `needs` names: no attention implementation gives them away."""
    paths = {"queries": layout.query, "keys": layout.key, "values": layout.value}
    heard: dict[str, list[Tensor]] = {name: [] for name in paths if name in needs}
    widths = widths_of(model.config)
    heads = widths["num_attention_heads"]
    within = getattr(model.config, "true_hidden_size", widths["hidden_size"])  # MobileBERT's layers are narrower inside
    size = getattr(model.config, "head_dim", None) or within // heads
    served = heads // getattr(model.config, "num_key_value_heads", heads)

    awaited: set[str] = set()  # of the layer under way: DeBERTa sends its relative positions through them afterwards

    def hear(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def note(module: nn.Module, args: Any, out: Tensor) -> None:
            if name not in awaited:
                return
            awaited.remove(name)
            if layout.query == layout.key:
                out = out.chunk(3, -1)[list(paths).index(name)]
            found = out.view(*out.shape[:-1], -1, size).transpose(1, 2)
            # Fewer keys and values than queries: each serves several heads (grouped-query attention).
            heard[name].append(found.repeat_interleave(served if name != "queries" else 1, dim=1))

        return note

    layers = layers_of(model) if heard else []
    hooks = [layer.get_submodule(paths[name]).register_forward_hook(hear(name)) for name in heard for layer in layers]
    for layer in layers:
        attention = layer.get_submodule(layout.query.rpartition(".")[0])
        hooks.append(attention.register_forward_pre_hook(lambda *_: awaited.update(heard)))
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def head_transform(model: PreTrainedModel, layout: Layout, hidden: Tensor, *, few_shapes: bool = False) -> Tensor:
    """(N, H) -> (N, H'): the vocabulary head up to its projection, which may have a width of its own."""
    if not layout.head_dense:
        return hidden
    name = "gelu" if layout.head_activation is None else getattr(model.config, layout.head_activation)
    dense = model.get_submodule(layout.head_dense)(in_blocks(hidden) if few_shapes else hidden)
    transformed: Tensor = model.get_submodule(layout.head_norm)(ACT2FN[name](dense))
    return transformed[: hidden.shape[0]]


def _projection(model: PreTrainedModel, layout: Layout) -> Tensor:
    """(V, H'): the vocabulary projection."""
    weight = tensor_of(model, layout.decoder)
    return torch.cat([weight, tensor_of(model, layout.more_decoder).t()], 1) if layout.more_decoder else weight


def _head_bias(model: PreTrainedModel, layout: Layout) -> Tensor | None:
    """(V,): of the vocabulary projection, where it has one."""
    path, _, name = (layout.decoder_bias or f"{layout.decoder}.bias").rpartition(".")
    bias: Tensor | None = getattr(model.get_submodule(path), name)
    return bias


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


def vocabulary_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """(N, H) last hidden states of some tokens -> (N, V)."""
    layout = layout_of(model.config)
    return linear(head_transform(model, layout, hidden), _projection(model, layout), _head_bias(model, layout))
