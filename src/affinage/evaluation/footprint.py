"""How big a model is and what a forward pass costs: counted, not estimated."""

import re
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn
from transformers import PreTrainedModel

from affinage.evaluation.weight_files import stored_as, stored_bytes
from affinage.models.layout import depth_of, layers_of, layout_of, position_offset, widths_of
from affinage.models.modules.base import Compressed, multiply_adds
from affinage.models.storage import held_tensors
from affinage.report.report import ModelEntry

_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"} | {
    kind: str(kind).removeprefix("torch.") for kind in (torch.int8, torch.uint8, torch.int16, torch.int32)
}


class Footprint(BaseModel):
    """Shape, parameters and cost of an encoder."""

    model_config = ConfigDict(frozen=True)

    architecture: str
    layers: int
    hidden_size: int
    heads: int
    intermediate_size: int
    vocab_size: int
    max_length: int
    """tokens a row may have"""
    embeddings: int
    encoder: int
    pooler: int
    head: int
    """parameters of each part; those the head shares with the embeddings count as embeddings"""
    parameters: int
    """all of them, tied ones once, packed integers each"""
    size_bytes: int
    """of the weights on disk, or of the tensors as they are"""
    stored_as: str | None
    """precision of the weights on disk: fp32, fp16, bf16, or several joined by `and`; None where it is not known"""
    flops: int
    """operations of the encoder for one text of `length` tokens; a multiply-add is two"""
    length: int


def footprint(model: PreTrainedModel, *, length: int = 128, folder: str | Path | None = None) -> Footprint:
    """Count a model; it may live on the meta device. `folder` is where its weights lie, if they do."""
    config = model.config
    parts = _counted(model)
    widths = widths_of(config)
    return Footprint(
        architecture=type(model).__name__,
        layers=depth_of(config),
        hidden_size=widths["hidden_size"],
        heads=widths["num_attention_heads"],
        intermediate_size=widths["intermediate_size"],
        vocab_size=int(config.vocab_size),
        max_length=int(config.max_position_embeddings) - position_offset(config),
        parameters=sum(parts.values()),
        size_bytes=stored_bytes(folder) or tensor_bytes(model),
        stored_as=stored_as(folder),
        flops=encoder_flops(model, length),
        length=length,
        **parts,
    )


def model_entry(
    model: PreTrainedModel,
    *,
    name: str,
    path: str | Path,
    base: str | Path | None = None,
    folder: str | Path | None = None,
) -> ModelEntry:
    """The model as reports name it. `base`: what it was fine-tuned or distilled from.

    `folder`: where it was loaded from; None: it is about to be stored as it is.
    """
    shape = footprint(model, folder=folder)
    size, precision = shape.size_bytes, shape.stored_as
    if folder is None:
        size = tensor_bytes(model)
        kinds = {tensor.dtype for tensor in held_tensors(model).values()}
        precision = " and ".join(sorted(_NAMES.get(kind, str(kind)) for kind in kinds))
    return ModelEntry(
        name=name,
        path=str(path),
        parameters=shape.parameters,
        layers=shape.layers,
        hidden_size=shape.hidden_size,
        size_bytes=size,
        stored_as=precision,
        base=None if base is None else str(base),
    )


def tensor_bytes(model: PreTrainedModel) -> int:
    """Of everything that a checkpoint of the model stores, its header aside."""
    return sum(tensor.nbytes for tensor in held_tensors(model).values())


def encoder_flops(model: PreTrainedModel, length: int) -> int:
    """Operations for a text of `length` tokens from its ids to the last hidden states; a multiply-add is two.

    Counted are the linear maps as they are, compressed ones as they compute, a layer that stands twice twice; and
    products of queries with keys, and of what comes of that with values. Norms, softmax and activations, below one per
    cent, are left out, and so is what relative positions add to scores.
    """
    layout = layout_of(model.config)
    base = model if model.base_model is model else model.get_submodule(layout.base)
    layers = layers_of(model)
    maps, scores = _around(base, {id(part) for layer in layers for part in layer.modules()}), 0
    if layout.shares_layers:  # as ALBERT does: groups of neighbouring layers
        depth = depth_of(model.config)
        layers = [layers[i * len(layers) // depth] for i in range(depth)]
    joint = 3 if layout.query == layout.key else 1  # one map gives queries, keys and values
    for layer in layers:
        query: Any = layer.get_submodule(layout.query)
        maps, scores = maps + multiply_adds(layer), scores + int(query.out_features) // joint
    return 2 * length * maps + 4 * length**2 * scores


def equation_9(*, layers: int, width: int, inner: int, vocabulary: int, positions: int) -> int:
    """Parameters without token types, pooler and head: L (4d^2 + 2dE + 9d + E) + d (|W| + |E| + 2).

    Delestre & Amar 2022, arXiv:2205.11111, equation 9; `positions` is the number of rows of the position table.
    """
    return layers * (4 * width**2 + 2 * width * inner + 9 * width + inner) + width * (vocabulary + positions + 2)


def _counted(model: PreTrainedModel) -> dict[str, int]:
    """Part -> numbers in it. What is tied or shared counts once, and where one use is the embeddings, there."""
    parts = dict.fromkeys(("embeddings", "encoder", "pooler", "head"), 0)
    seen: set[int] = set()
    found: list[tuple[str, object, int]] = []
    for path, module in model.named_modules():
        if isinstance(module, Compressed):
            found.append((_part(f"{path}.weight"), module, module.numbers()))
            seen.update(map(id, module.held()))
    named = model.named_parameters(remove_duplicate=False)
    found += [(_part(name), parameter, parameter.numel()) for name, parameter in named]
    for part, owner, count in sorted(found, key=lambda entry: entry[0] != "embeddings"):
        if id(owner) not in seen:
            parts[part] += count
        seen.add(id(owner))
    return parts


def _around(module: nn.Module, layers: set[int]) -> int:
    """Multiply-adds of one token in what is neither a layer nor the pooler: factored tables, maps beside them."""
    if isinstance(module, Compressed | nn.Linear):
        return multiply_adds(module)
    parts = [part for name, part in module.named_children() if name != "pooler" and id(part) not in layers]
    return sum(_around(part, layers) for part in parts)


def _part(name: str) -> str:
    if re.search(r"(^|\.)(embed_|embedding|position_embeddings|layer_norm_emb)", name):
        return "embeddings"
    if re.search(r"(^|\.)(encoder|transformer|model|attentions|ffns|layer_norm[12]|layers)\.|^(final_)?norm\.", name):
        return "encoder"
    return "pooler" if re.search(r"(^|\.)pooler\.", name) else "head"
