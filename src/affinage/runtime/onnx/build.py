"""A model -> its ONNX graph: built from its parts where the architecture's are known, else traced."""

import onnx
import torch
from transformers import PreTrainedModel

from affinage import __version__
from affinage.errors import InputError
from affinage.models.layout import layout_of
from affinage.models.modules.base import Compressed
from affinage.models.pooling import Mode
from affinage.runtime.onnx import factored, packed  # noqa: F401 (they fill the tables of emitters)
from affinage.runtime.onnx.config import Int8Kind
from affinage.runtime.onnx.encoder import declare_inputs, encode
from affinage.runtime.onnx.graph import Graph
from affinage.runtime.onnx.heads import (
    MASKED,
    SEQUENCE,
    SPAN,
    TOKEN,
    emit_embedding,
    emit_masked,
    emit_sequence,
    emit_span,
    emit_token,
    head_of,
)
from affinage.runtime.onnx.linear import ACTIVATIONS, Emission, Int8
from affinage.runtime.onnx.parts import activation_of, is_built
from affinage.runtime.onnx.traced import traced_graph

_EMIT = {SEQUENCE: emit_sequence, TOKEN: emit_token, SPAN: emit_span, MASKED: emit_masked}


@torch.no_grad()
def onnx_graph(
    model: PreTrainedModel, *, int8: Int8 | None = None, pooling: Mode | None = None, pairs: bool = False
) -> onnx.ModelProto:
    """The graph of a model with a task's head, or the vocabulary's; with `pooling`, of its encoder alone.

    Inputs `input_ids`, `attention_mask` and, where the model takes them, `token_type_ids`: (B, T) int64, padded on the
    right; for a masked language model also `positions` (N, 2) int64. Outputs `logits`: (B, C), (B, T, C) or, at
    the positions asked for, (N, V); of spans `start_logits` and `end_logits` (B, T); pooled ones `embeddings` (B, H).
    `pairs`: as in `Emission`, for OpenVINO.

    Raises: InputError for a head, or a variant of an architecture, that cannot be exported.
    """
    layout_of(model.config)  # refuses variants
    head = head_of(model)
    if not is_built(model):
        return traced_graph(model, int8=int8, pooling=pooling, pairs=pairs)
    activation = activation_of(model)
    if activation not in ACTIVATIONS:
        raise InputError(f"activation '{activation}' is not exported; known: {', '.join(sorted(ACTIVATIONS))}")
    integers = int8 is not None or integers_in(model) != "none"  # float32 graphs are for OpenVINO, too
    out = Emission(Graph(model), int8, pairs=pairs, branches=integers and not pairs)
    inputs = declare_inputs(out, model)
    last = encode(out, model, inputs, first_only=pooling == "cls" if pooling else head == SEQUENCE)
    if pooling:
        emit_embedding(out, model, last, inputs.mask, pooling)
    else:
        _EMIT[head](out, model, last)
    return out.graph.model(f"affinage {__version__}")


def integers_in(model: PreTrainedModel) -> Int8Kind:
    """Whether the model computes in integers by itself, and where the ranges of activations come from."""
    parts = [module for module in model.modules() if isinstance(module, Compressed)]
    found = {part.inputs for part in parts}
    if "static" in found:
        return "static"
    return "dynamic" if "dynamic" in found or any(part.kind == "int8-embedding" for part in parts) else "none"
