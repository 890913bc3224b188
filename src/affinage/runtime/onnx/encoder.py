"""The encoder as a graph: embeddings, then layers of some twelve operators, with as many texts and tokens as are given.

What a text's answer does not depend on is not computed: of the last layer, the first token alone where only that is
read.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from affinage.models.layout import layout_of
from affinage.runtime.onnx.linear import Emission, Value
from affinage.runtime.onnx.parts import EmbeddingParts, LayerParts, activation_of, embeddings_of, layer_parts

BATCH, LENGTH = "batch", "length"


@dataclass(frozen=True)
class Inputs:
    """Names of the graph's inputs, (B, T) int64 each."""

    ids: str
    mask: str
    types: str | None


def takes_types(model: PreTrainedModel) -> bool:
    """Whether the architecture tells first and second texts apart by embeddings, of which there are several."""
    has_table = layout_of(model.config).token_type_embeddings is not None
    return has_table and int(model.config.type_vocab_size) > 1


def declare_inputs(out: Emission, model: PreTrainedModel) -> Inputs:
    """`input_ids`, `attention_mask` and, where the model takes them, `token_type_ids`."""
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if takes_types(model) else [])]
    declared = [out.graph.input(name, (BATCH, LENGTH)) for name in names]
    return Inputs(declared[0], declared[1], declared[2] if len(declared) > 2 else None)


def encode(out: Emission, model: PreTrainedModel, inputs: Inputs, *, first_only: bool = False) -> str:
    """The last hidden states (B, T, H); with `first_only` those of each row's first token (B, 1, H)."""
    x = _embed(out, model, embeddings_of(model), inputs)
    mask = out.graph.op("Cast", inputs.mask, to=6)  # int32
    layers, activation = layer_parts(model), activation_of(model)
    for i, layer in enumerate(layers):
        x = _layer(out, x, layer, mask, activation, first_only=first_only and i == len(layers) - 1)
    return x if layers or not first_only else _first(out, x)


def _embed(out: Emission, model: PreTrainedModel, parts: EmbeddingParts, inputs: Inputs) -> str:
    """(B, T, H) what the first layer reads."""
    g = out.graph
    x = out.embedding(inputs.ids, parts.words)
    if parts.types is not None and inputs.types is not None:
        x = g.op("Add", x, g.op("Gather", g.weight(parts.types.weight), inputs.types))
    positions = _position_table(out, parts)
    if layout_of(model.config).positions_after_pad:
        places = g.op("Gather", positions, _places_after_pad(out, inputs.ids, int(model.config.pad_token_id)))
    else:
        length = g.op("Shape", inputs.ids, start=1, end=2)
        places = g.op("Slice", positions, g.constant([0]), length, g.constant([0]))
    x = out.add_norm(Value(x), places, parts.norm)
    return x if parts.projection is None else out.add_bias(out.linear(x, parts.projection))


def _position_table(out: Emission, parts: EmbeddingParts) -> str:
    """The position table; where there is one type of token, with its embedding in it."""
    g, module, types = out.graph, parts.positions, parts.types
    only = [] if types is None or types.num_embeddings > 1 else [types.weight]
    if isinstance(module, nn.Embedding):
        if only:
            return g.weight(module.weight, "with_type", lambda rows, one: rows + one, others=only)
        return g.weight(module.weight)
    table = out.whole_table(module)
    return str(g.op("Add", table, g.weight(only[0]))) if only else table


def _places_after_pad(out: Emission, ids: str, pad: int) -> str:
    """(B, T) positions: they count the tokens that are no pad, from `pad` + 1 on; those of pads are `pad`."""
    g = out.graph
    real = g.op("Cast", g.op("Not", g.op("Equal", ids, g.constant([pad]))), to=7)
    counted = g.op("Mul", g.op("CumSum", real, g.constant(np.array(1))), real)
    return str(g.op("Add", counted, g.constant([pad])))


def _layer(out: Emission, x: str, layer: LayerParts, mask: str, activation: str, *, first_only: bool) -> str:
    """x (B, T, H) -> (B, T, H), or (B, 1, H): the first token alone asks, of all of them."""
    normed = out.norm(Value(x), layer.attention_norm) if layer.norm_first else x
    asking, skip = (_first(out, normed), _first(out, x)) if first_only else (normed, x)
    attended = out.linear(_attention(out, asking, normed, layer, mask), layer.output)
    if layer.norm_first:
        x = out.graph.op("Add", out.add_bias(attended), skip)
        inner = out.activate(out.linear(out.norm(Value(x), layer.outer_norm), layer.inner), activation)
        return str(out.graph.op("Add", out.add_bias(out.linear(inner, layer.outer)), x))
    x = out.add_norm(attended, skip, layer.attention_norm)
    inner = out.activate(out.linear(x, layer.inner), activation)
    return out.add_norm(out.linear(inner, layer.outer), x, layer.outer_norm)


def _attention(out: Emission, asking: str, x: str, layer: LayerParts, mask: str) -> str:
    """(B, T, A·D) what every asking token attends to among the real tokens of x."""
    if asking == x:
        values = out.linears(x, [layer.query, layer.key, layer.value])
    else:
        values = [out.linear(asking, layer.query), *out.linears(x, [layer.key, layer.value])]
    heads = _features(layer.query) // layer.head_size
    bias = ""
    if any(value.bias is not None for value in values):
        if all(value.bias is not None for value in values):
            bias = out.joined([value.bias for value in values if value.bias is not None])
        else:
            values = [Value(out.add_bias(value)) for value in values]
    g, names = out.graph, [value.name for value in values]
    sizes: dict[str, Any] = {"num_heads": heads, "scale": layer.scale}
    if not out.branches:
        return str(g.fused("MultiHeadAttention", *names, bias, mask, **sizes))
    whole = g.once("Cast", g.once("ReduceMin", mask, keepdims=0), to=9)  # bool
    return g.either(
        whole,
        g.aside("MultiHeadAttention", *names, bias, **sizes),
        g.aside("MultiHeadAttention", *names, bias, mask, **sizes),
    )


def _features(module: nn.Module) -> int:
    return int(module.out_features)  # type: ignore[arg-type]


def _first(out: Emission, x: str) -> str:
    """(B, 1, H) of (B, T, H)."""
    return str(out.graph.once("Gather", x, out.graph.constant([0]), axis=1))
