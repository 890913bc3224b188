"""What models in memory take beside one another, run as a user runs them: milliseconds of one text, peak memory."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from affinage.errors import InputError, MissingExtra
from affinage.models.checkpoint import head_kind, max_length
from affinage.models.layout import layout_of
from affinage.models.storage import save_model
from affinage.runtime.benchmark import Timing, interleave
from affinage.runtime.forward import TorchForward
from affinage.runtime.fresh import fresh_cost
from affinage.runtime.workload import Padded

Engine = Literal["torch fp32", "onnxruntime"]
TORCH: Engine = "torch fp32"
ONNX: Engine = "onnxruntime"


@dataclass(frozen=True)
class Running:
    """A model ready to answer one text, under one engine."""

    engine: str
    run: Callable[[], object]
    peak_memory_bytes: Callable[[], int]
    """largest resident set of a fresh process that loads it and answers that text, libraries included"""


def running(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, engine: Engine, *, length: int = 128
) -> Running:
    """`model` under an engine, with a text of `length` tokens, or as many as it takes; in PyTorch a masked language
    model without its vocabulary head, in ONNX Runtime with it at one place, as `predict` asks for it.

    Raises: InputError for a model that has no graph; MissingExtra without ONNX Runtime.
    """
    ids = _text(model, length)
    return _in_onnx(model, ids) if engine == ONNX else _in_torch(model, tokenizer, ids)


def in_one_engine(
    models: Sequence[PreTrainedModel], tokenizers: Sequence[PreTrainedTokenizerFast], *, length: int = 128
) -> list[Running]:
    """All of them in ONNX Runtime where each has a graph, else all in PyTorch: figures of two engines do not mix."""
    pairs = list(zip(models, tokenizers, strict=True))
    try:
        return [running(model, tokenizer, ONNX, length=length) for model, tokenizer in pairs]
    except InputError:  # no graph, or no ONNX Runtime
        return [running(model, tokenizer, TORCH, length=length) for model, tokenizer in pairs]


def timed(models: Sequence[Running], *, repeats: int = 40, seconds: float = 6.0) -> Timing:
    """Interleaved rounds of one text each."""
    return interleave(
        lambda model, _: models[model].run(), models=len(models), warmup=3, repeats=repeats, seconds=seconds
    )


def _text(model: PreTrainedModel, length: int) -> Any:
    """(1, T) ids of a made-up text."""
    pad = int(model.config.pad_token_id or 0)
    others = [i for i in range(min(int(model.config.vocab_size), 1000)) if i != pad]
    size = min(length, max_length(model.config))
    return np.random.default_rng(0).choice(others, size=(1, size)).astype(np.int64)


def _in_torch(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, ids: Any) -> Running:
    network = model.eval() if head_kind(model.config) else model.eval().get_submodule(layout_of(model.config).base)
    forward, ones = TorchForward(network), np.ones_like(ids)

    def peak() -> int:
        with tempfile.TemporaryDirectory() as folder:
            save_model(model, Path(folder))
            tokenizer.save_pretrained(folder)
            cost = fresh_cost(folder, [Padded(ids, ones)], engine=TorchForward.engine, threads=1)
        return cost.peak_memory_bytes

    return Running(TORCH, lambda: forward.run(ids, ones), peak)


def _in_onnx(model: PreTrainedModel, ids: Any) -> Running:
    try:
        from affinage.runtime.onnx.build import onnx_graph
        from affinage.runtime.onnx.folder import write_graph
        from affinage.runtime.onnx.peak import peak_of_graph
        from affinage.runtime.onnx.session import OnnxEngine
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "export") from None
    graph = onnx_graph(model)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    inputs["positions"] = np.array([[0, ids.shape[1] // 2]])
    with tempfile.TemporaryDirectory() as folder:
        engine = OnnxEngine(write_graph(graph, Path(folder)), pad_id=0)

    def peak() -> int:
        with tempfile.TemporaryDirectory() as folder:
            return peak_of_graph(write_graph(graph, Path(folder)), inputs)

    return Running(ONNX, lambda: engine.run(inputs), peak)
