"""The parts of an encoder that the graph is built from, under one name each, whatever the architecture calls them."""

from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from affinage.errors import InputError
from affinage.models.layout import layers_of, layout_of, size_of_heads
from affinage.models.parts import Layout

_ALBERT = {
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "attention_output": "attention.dense",
    "attention_norm": "attention.LayerNorm",
    "intermediate": "ffn",
    "output": "ffn_output",
    "output_norm": "full_layer_layer_norm",
}


@dataclass(frozen=True)
class LayerParts:
    """One layer: attention, then a feed-forward network, each followed by a norm, or after one (`norm_first`)."""

    query: nn.Module
    key: nn.Module
    value: nn.Module
    output: nn.Module
    head_size: int
    scale: float
    """of the products of queries and keys"""
    attention_norm: nn.LayerNorm
    inner: nn.Module
    outer: nn.Module
    outer_norm: nn.LayerNorm
    norm_first: bool = False


def is_built(model: PreTrainedModel) -> bool:
    """Whether the graph of this architecture is built from its parts; the others are traced."""
    layout = layout_of(model.config)
    return layout.whole or layout.model_type in ("albert", "flaubert")


def layer_parts(model: PreTrainedModel) -> list[LayerParts]:
    """The layers in the order in which they compute; shared ones several times."""
    layout, layers = layout_of(model.config), layers_of(model)
    if layout.model_type == "albert":
        depth, groups = model.config.num_hidden_layers, model.config.num_hidden_groups
        layers = [layers[int(i / (depth / groups))].get_submodule("albert_layers.0") for i in range(depth)]
        layout = replace(layout, **_ALBERT)  # type: ignore[arg-type]
    return [_of_layer(layer, layout) for layer in layers]


def _of_layer(layer: nn.Module, layout: Layout) -> LayerParts:
    attention: Any = layer.get_submodule(layout.query.rpartition(".")[0])
    size = size_of_heads(attention)
    return LayerParts(
        query=layer.get_submodule(layout.query),
        key=layer.get_submodule(layout.key),
        value=layer.get_submodule(layout.value),
        output=layer.get_submodule(layout.attention_output),
        head_size=size,
        scale=float(getattr(attention, "scaling", size**-0.5)),
        attention_norm=_norm(layer, layout.attention_norm),
        inner=layer.get_submodule(layout.intermediate),
        outer=layer.get_submodule(layout.output),
        outer_norm=_norm(layer, layout.output_norm),
        norm_first=layout.norms_first,
    )


@dataclass(frozen=True)
class EmbeddingParts:
    """Tables, norm, and the map to the encoder's width where the tables are narrower."""

    words: nn.Module
    positions: nn.Module
    types: nn.Embedding | None
    norm: nn.LayerNorm
    projection: nn.Module | None


def embeddings_of(model: PreTrainedModel) -> EmbeddingParts:
    """The parts before the first layer."""
    layout = layout_of(model.config)
    base = model.get_submodule(layout.base)
    if layout.model_type == "flaubert":
        tables, norm = base, "layer_norm_emb"
    else:
        tables, norm = base.get_submodule("embeddings"), "LayerNorm"
    projection = {"albert": "encoder.embedding_hidden_mapping_in", "electra": "embeddings_project"}
    path = projection.get(layout.model_type, "")
    types = layout.token_type_embeddings
    return EmbeddingParts(
        words=model.get_submodule(layout.word_embeddings),
        positions=tables.get_submodule("position_embeddings"),
        types=model.get_submodule(types) if types else None,  # type: ignore[arg-type]
        norm=_norm(tables, norm),
        projection=base.get_submodule(path) if path and hasattr(base, path.partition(".")[0]) else None,
    )


def activation_of(model: PreTrainedModel) -> str:
    """transformers' name of the feed-forward networks' activation."""
    config = model.config
    if config.model_type == "flaubert":
        return "gelu" if config.gelu_activation else "relu"
    return str(config.activation if config.model_type == "distilbert" else config.hidden_act)


def _norm(within: nn.Module, path: str) -> nn.LayerNorm:
    """Raises: InputError for a norm of another kind."""
    norm = within.get_submodule(path)
    if not isinstance(norm, nn.LayerNorm):
        raise InputError(f"'{path}' is a {type(norm).__name__}: no graph can be built of it; expected a LayerNorm")
    return norm
