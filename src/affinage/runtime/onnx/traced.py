"""The graph of an architecture that is not built from its parts: what torch.onnx makes of its forward pass."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.models.encoder import head_transform, vocabulary_logits
from affinage.models.layout import layout_of
from affinage.models.pooling import Mode, pool
from affinage.runtime.onnx.encoder import BATCH, LENGTH, takes_types
from affinage.runtime.onnx.heads import MASKED, POSITIONS, SPAN, head_of
from affinage.runtime.onnx.holes import Hole, fill_holes_, with_holes
from affinage.runtime.onnx.linear import Int8
from affinage.runtime.onnx.traced_int8 import quantize_

_OPSET = 18


def traced_graph(
    model: PreTrainedModel, *, int8: Int8 | None = None, pooling: Mode | None = None, pairs: bool = False
) -> onnx.ModelProto:
    """The graph, with the inputs and outputs of `onnx_graph`."""
    head = "" if pooling else head_of(model)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if takes_types(model) else [])]
    example = [torch.full((2, 8), 5), torch.ones(2, 8, dtype=torch.long), torch.zeros(2, 8, dtype=torch.long)]
    plain, fillings = with_holes(model)
    given, wrapper = example[: len(names)], _MaskedLM(plain) if head == MASKED else _TaskModel(plain, pooling)
    shape = {0: BATCH, 1: LENGTH}
    shapes: list[dict[int, str]] = [shape] * len(names)
    if head == MASKED:
        names.append(POSITIONS)
        given.append(torch.tensor([[0, 1], [1, 2], [1, 3]]))
        shapes.append({0: "places"})
    outputs = ["start_logits", "end_logits"] if head == SPAN else ["embeddings" if pooling else "logits"]
    with _quiet():
        program = torch.onnx.export(
            wrapper.eval(),
            tuple(given),
            dynamo=True,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=(tuple(shapes),),
            opset_version=_OPSET,
            verbose=False,
        )
    assert program is not None
    made: onnx.ModelProto = program.model_proto
    del made.graph.value_info[:]  # shapes that a quantized graph would contradict
    if int8 is not None:
        quantize_(made, int8)
    if fillings:
        fill_holes_(made, fillings, model, int8=int8, pairs=pairs, opset=_OPSET)
    return made


class _TaskModel(nn.Module):
    """A stock model as positional arguments and a tuple of tensors."""

    def __init__(self, model: PreTrainedModel, pooling: Mode | None = None) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.pooling is not None:
            encoder = self.model.get_submodule(layout_of(self.model.config).base)
            return pool(encoder(**_named(inputs)).last_hidden_state, inputs[1], self.pooling)
        output = self.model(**_named(inputs))
        return (output.start_logits, output.end_logits) if "start_logits" in output else output.logits


class _MaskedLM(nn.Module):
    """A masked language model that is asked for some places only."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        *inputs_, places = inputs
        layout = layout_of(self.model.config)
        last = self.model.get_submodule(layout.base)(**_named(inputs_)).last_hidden_state[places[:, 0], places[:, 1]]
        decoder = self.model.get_submodule(layout.decoder)
        if isinstance(decoder, Hole):
            logits: Tensor = decoder(head_transform(self.model, layout, last))
            return logits
        return vocabulary_logits(self.model, last)


def _named(inputs: tuple[Tensor, ...] | list[Tensor]) -> dict[str, Tensor]:
    return dict(zip(("input_ids", "attention_mask", "token_type_ids"), inputs, strict=False))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress, logs what it tries and warns of its own parts."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
