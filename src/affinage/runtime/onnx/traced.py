"""The graph of an architecture that is not built from its parts: what torch.onnx makes of its forward pass."""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.models.encoder import vocabulary_logits
from affinage.models.layout import layout_of
from affinage.models.modules.base import Compressed
from affinage.models.pooling import Mode, pool
from affinage.models.replacing import replace_embedding_, replace_module_, word_embedding_path
from affinage.runtime.onnx.encoder import BATCH, LENGTH, takes_types
from affinage.runtime.onnx.heads import MASKED, POSITIONS, SPAN, head_of

_OPSET = 18


def traced_graph(model: PreTrainedModel, *, pooling: Mode | None = None) -> onnx.ModelProto:
    """The graph, in float32, with the inputs and outputs of `onnx_graph`."""
    head = "" if pooling else head_of(model)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if takes_types(model) else [])]
    example = [torch.full((2, 8), 5), torch.ones(2, 8, dtype=torch.long), torch.zeros(2, 8, dtype=torch.long)]
    plain = _with_dense_modules(model)
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
    return made


def _with_dense_modules(model: PreTrainedModel) -> PreTrainedModel:
    """The model with the matrices that its compressed modules stand for: those cannot all be traced."""
    if not any(isinstance(module, Compressed) for module in model.modules()):
        return model
    plain = copy.deepcopy(model)
    table = word_embedding_path(plain)
    for path, module in list(plain.named_modules()):
        if not isinstance(module, Compressed) or _inside(plain, path):
            continue
        weight = nn.Parameter(module.dense().detach(), requires_grad=False)
        if not hasattr(module, "num_embeddings"):
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            linear.weight, linear.bias = weight, module.bias  # type: ignore[assignment]
            replace_module_(plain, path, linear)
            continue
        rows, width = weight.shape
        made = nn.Embedding(rows, width, module.padding_idx, _weight=weight)  # type: ignore[arg-type]
        if path == table:
            replace_embedding_(plain, made)
        else:
            replace_module_(plain, path, made)
    return plain


def _inside(model: PreTrainedModel, path: str) -> bool:
    """Whether a module around this one is compressed, or the one itself was replaced with that."""
    parts = path.split(".")
    around = [".".join(parts[:i]) for i in range(1, len(parts))]
    try:
        return any(isinstance(model.get_submodule(one), Compressed | nn.Linear | nn.Embedding) for one in around)
    except AttributeError:
        return True


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
        last = self.model.get_submodule(layout_of(self.model.config).base)(**_named(inputs_)).last_hidden_state
        return vocabulary_logits(self.model, last[places[:, 0], places[:, 1]])


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
