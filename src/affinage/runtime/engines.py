"""The engines that the benchmark can run a model under: PyTorch, and graphs made of the model in memory."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from affinage.errors import InputError, unknown
from affinage.models.checkpoint import head_kind, load_masked_lm, load_task_model, max_length, read_config
from affinage.runtime.forward import Forward, Ints, TorchForward
from affinage.runtime.onnx.batches import GraphEngine
from affinage.runtime.onnx.extra import export_extra


class _GraphForward(ABC):
    """A model as a graph, with the head of its task; without one, the mean of its tokens."""

    engine: ClassVar[str]
    int8: ClassVar[bool] = False

    def __init__(self, engine: GraphEngine, pad_id: int) -> None:
        self._engine, self._pad_id = engine, pad_id

    @classmethod
    @abstractmethod
    def made(cls, graph: bytes, settings: dict[str, Any]) -> GraphEngine:
        """The engine with a graph in it."""

    @classmethod
    @contextmanager
    def load(cls, model: str | Path, *, threads: int) -> Iterator[Self]:
        with export_extra():
            from affinage.runtime.onnx.build import onnx_graph
            from affinage.runtime.onnx.linear import Int8
        kind = head_kind(read_config(model))
        network = load_masked_lm(model, allow_fresh_head=True)[0] if kind is None else load_task_model(model, kind)
        graph = onnx_graph(network, int8=Int8() if cls.int8 else None, pooling="mean" if kind is None else None)
        pad_id = int(network.config.pad_token_id or 0)
        settings = {"pad_id": pad_id, "threads": threads, "longest": max_length(network.config)}
        del network
        yield cls(cls.made(graph.SerializeToString(), settings), pad_id)

    def run(self, input_ids: Ints, attention_mask: Ints) -> NDArray[np.float32]:
        types = np.zeros_like(input_ids)
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": types}
        return self._engine.run(self._engine.padded(given, self._pad_id))[0]


class OnnxForward(_GraphForward):
    """ONNX Runtime, float32."""

    engine = "onnx fp32"

    @classmethod
    def made(cls, graph: bytes, settings: dict[str, Any]) -> GraphEngine:
        from affinage.runtime.onnx.session import OnnxEngine

        return OnnxEngine(graph, pad_id=settings["pad_id"], threads=settings["threads"])


class OnnxInt8Forward(OnnxForward):
    """ONNX Runtime, int8 with dynamic ranges."""

    engine = "onnx int8"
    int8 = True


class OpenVinoForward(_GraphForward):
    """OpenVINO, float32, batches padded to its widths."""

    engine = "openvino fp32"
    dtype: ClassVar[Any] = "float32"

    @classmethod
    def made(cls, graph: bytes, settings: dict[str, Any]) -> GraphEngine:
        from affinage.runtime.openvino import OpenVinoEngine

        return OpenVinoEngine(graph, **settings, dtype=cls.dtype)


class OpenVinoBf16Forward(OpenVinoForward):
    """OpenVINO, products in bfloat16."""

    engine = "openvino bf16"
    dtype = "bfloat16"


ENGINES: dict[str, type[Forward]] = {
    one.engine: one for one in (TorchForward, OnnxForward, OnnxInt8Forward, OpenVinoForward, OpenVinoBf16Forward)
}
"""name in reports -> class"""


def engine_names(asked: list[str]) -> list[str]:
    """Names as they stand in reports, of those asked for: "onnx-int8", "torch" (fp32). Raises: InputError."""
    found = []
    for name in asked:
        whole = name.replace("-", " ")
        whole = whole if " " in whole else f"{whole} fp32"
        if whole not in ENGINES:
            raise InputError(unknown("engine", name, [known.replace(" ", "-") for known in ENGINES]))
        found.append(whole)
    if not found or len(set(found)) < len(found):
        raise InputError(f"engines: {', '.join(asked) or 'none'}: give at least one, each once")
    return found
