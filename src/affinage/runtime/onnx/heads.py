"""The heads as graphs, from the last hidden states to logits."""

from typing import NamedTuple

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from affinage.errors import InputError
from affinage.models.layout import layout_of, usual_class_name, widths_of
from affinage.models.pooling import Mode
from affinage.runtime.onnx.encoder import BATCH, LENGTH
from affinage.runtime.onnx.linear import Emission

SEQUENCE, TOKEN, SPAN, MASKED = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMaskedLM",
)
POSITIONS = "positions"
"""input (N, 2) of masked language models: row and column of the places whose logits are wanted"""


class _Pooled(NamedTuple):
    """What a text's first token goes through: a linear map, an activation, a linear map to the classes."""

    dense: str
    activation: str
    classes: str


_ROBERTA = _Pooled("classifier.dense", "tanh", "classifier.out_proj")
_SEQUENCE = {
    "bert": _Pooled("bert.pooler.dense", "tanh", "classifier"),
    "roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "electra": _ROBERTA._replace(activation="gelu"),
    "distilbert": _Pooled("pre_classifier", "relu", "classifier"),
    "albert": _Pooled("albert.pooler", "tanh", "classifier"),
}


def head_of(model: PreTrainedModel) -> str:
    """Which head a model has. Raises: InputError for one that is not exported."""
    name = usual_class_name(type(model).__name__)
    heads = (SEQUENCE, TOKEN, SPAN, MASKED)
    found = next((head for head in heads if name.endswith(head)), None)
    if found is None:
        raise InputError(f"a {type(model).__name__} has no head that can be exported; known: …{', …'.join(heads)}")
    return found


def emit_sequence(out: Emission, model: PreTrainedModel, first: str) -> None:
    """`logits` (B, C) of each row's first token (B, 1, H)."""
    g = out.graph
    x = g.op("Squeeze", first, g.constant([1]))
    if model.config.model_type == "flaubert":
        logits = _summary(out, model, x)
    else:
        pooled = _SEQUENCE[model.config.model_type]
        dense = out.linear(x, model.get_submodule(pooled.dense))
        logits = _classes(out, model, out.activate(dense, pooled.activation), pooled.classes)
    g.output(logits, "logits", (BATCH, _labels(model)))


def emit_token(out: Emission, model: PreTrainedModel, last: str) -> None:
    """`logits` (B, T, C)."""
    logits = _classes(out, model, last, "classifier")
    out.graph.output(logits, "logits", (BATCH, LENGTH, _labels(model)))


def emit_span(out: Emission, model: PreTrainedModel, last: str) -> None:
    """`start_logits` and `end_logits` (B, T)."""
    g = out.graph
    both = g.op("Split", _classes(out, model, last, "qa_outputs"), outputs=2, axis=-1)
    for name, part in zip(("start_logits", "end_logits"), both, strict=True):
        g.output(g.op("Squeeze", part, g.constant([-1])), name, (BATCH, LENGTH))


def emit_masked(out: Emission, model: PreTrainedModel, last: str) -> None:
    """`logits` (N, V) at `positions` (N, 2)."""
    g, layout = out.graph, layout_of(model.config)
    x = g.op("GatherND", last, g.input(POSITIONS, ("places", 2)))
    if layout.head_dense:
        name = "gelu" if layout.head_activation is None else getattr(model.config, layout.head_activation)
        x = out.activate(out.linear(x, model.get_submodule(layout.head_dense)), name)
        norm = model.get_submodule(layout.head_norm)
        assert isinstance(norm, nn.LayerNorm)
        x = g.op("LayerNormalization", x, g.weight(norm.weight), g.weight(norm.bias), axis=-1, epsilon=norm.eps)
    decoder = model.get_submodule(layout.decoder)
    if isinstance(decoder, nn.Linear):
        logits = out.product(x, decoder.weight, decoder.bias, rows=True)
    else:
        logits = out.linear(x, decoder)
    g.output(out.add_bias(logits), "logits", ("places", int(model.config.vocab_size)))


def emit_embedding(out: Emission, model: PreTrainedModel, last: str, mask: str, mode: Mode) -> None:
    """`embeddings` (B, H) of last hidden states (B, T, H), or (B, 1, H) of the first token; mask (B, T) int64."""
    g = out.graph
    if mode == "cls":
        pooled = g.op("Squeeze", last, g.constant([1]))
    elif mode == "max":
        hidden = g.op("Not", g.op("Cast", g.op("Unsqueeze", mask, g.constant([-1])), to=9))
        pooled = g.op(
            "ReduceMax", g.op("Where", hidden, g.constant(np.asarray(-np.inf, np.float32)), last), axes=[1], keepdims=0
        )
    else:
        real = g.op("Cast", g.op("Unsqueeze", mask, g.constant([1])), to=1)
        summed = g.op("Squeeze", g.op("MatMul", real, last), g.constant([1]))  # (B, 1, T) times (B, T, H)
        pooled = g.op("Div", summed, g.op("ReduceSum", real, g.constant([2]), keepdims=0))
    g.output(pooled, "embeddings", (BATCH, widths_of(model.config)["hidden_size"]))


def _labels(model: PreTrainedModel) -> int:
    found = model.config.num_labels
    assert found is not None
    return found


def _classes(out: Emission, model: PreTrainedModel, x: str, path: str) -> str:
    """The last map, to the classes: always float32, it weighs nothing and decides."""
    module = model.get_submodule(path)
    assert isinstance(module, nn.Linear)
    g = out.graph
    product = g.fused("FusedMatMul", x, g.weight(module.weight), transB=1)
    return str(product if module.bias is None else g.op("Add", product, g.weight(module.bias)))


def _summary(out: Emission, model: PreTrainedModel, x: str) -> str:
    """FlauBERT's own: a linear map to the classes, as its config's defaults have it."""
    config = model.config
    if config.summary_type != "first" or not config.summary_use_proj or config.summary_activation:
        raise InputError(
            f"a FlauBERT classifier with summary_type {config.summary_type} is not exported; expected 'first', "
            "with summary_use_proj and without summary_activation"
        )
    return _classes(out, model, x, "sequence_summary.summary")
