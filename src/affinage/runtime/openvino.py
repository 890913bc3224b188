"""Graphs in OpenVINO, on the CPU: the same model.onnx or its own format, with texts padded to a few widths."""

import bisect
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from affinage.data.encoding import Ints
from affinage.errors import InputError, MissingExtra
from affinage.runtime.onnx.batches import GraphEngine
from affinage.runtime.onnx.session import default_threads

WIDTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""tokens that a batch is padded to: OpenVINO compiles its primitives anew for every shape"""


class OpenVinoEngine(GraphEngine):
    """A graph of `runtime.onnx`, run by OpenVINO on the CPU. Threads that use it at once wait for one another."""

    def __init__(
        self,
        graph: Path | str | bytes,
        *,
        pad_id: int,
        mask_id: int | None = None,
        threads: int | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        longest: int | None = None,
    ) -> None:
        """`graph`: a file, or its content. `threads`: None takes `default_threads()`. `dtype`: of products. `longest`:
        tokens that the model has positions for, beyond which no row is padded.

        Raises: InputError where OpenVINO cannot load it; MissingExtra where that is not installed.
        """
        super().__init__(pad_id=pad_id, mask_id=mask_id)
        openvino = openvino_package()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads or default_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
        }
        try:
            core = openvino.Core()
            model = core.read_model(graph if isinstance(graph, bytes) else str(graph))
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            where = "the graph" if isinstance(graph, bytes) else f"'{graph}'"
            raise InputError(
                f"{where} cannot be loaded by OpenVINO {openvino.__version__}: {_first_line(error)}"
            ) from None
        self._request: Any = compiled.create_infer_request()
        self._names = [one.any_name for one in compiled.inputs]
        self._outputs = range(len(compiled.outputs))
        self._turn, self._longest = threading.Lock(), longest

    def run(self, inputs: Mapping[str, Ints]) -> list[NDArray[np.float32]]:
        """The graph's outputs; inputs that it does not take are left out."""
        with self._turn:
            self._request.infer({name: inputs[name] for name in self._names})
            return [np.array(self._request.get_output_tensor(i).data) for i in self._outputs]

    def padded(self, inputs: dict[str, Ints], pad_id: int) -> dict[str, Ints]:
        rows, length = inputs["input_ids"].shape
        width = WIDTHS[bisect.bisect_left(WIDTHS, length)] if length <= WIDTHS[-1] else length
        width = max(length, min(width, self._longest or width))
        held = 1 << (rows - 1).bit_length()  # a power of two
        made = {}
        for name, array in inputs.items():
            made[name] = np.full((held, width), pad_id if name == "input_ids" else 0, np.int64)
            made[name][:rows, :length] = array
        # A text without a single token has no softmax: the rows that are added have one.
        made["attention_mask"][rows:, 0] = 1
        return made


def converted(graph: Path, to: Path) -> None:
    """Write the graph in the file `graph` to `to` (.xml, its weights beside it), as OpenVINO reads it without ONNX.

    Raises: InputError where OpenVINO has not all of its operators; MissingExtra where it is not installed.
    """
    openvino = openvino_package()
    try:
        openvino.save_model(openvino.Core().read_model(str(graph)), str(to), compress_to_fp16=False)
    except RuntimeError as error:
        raise InputError(
            f"--format openvino: OpenVINO {openvino.__version__} cannot read the graph: {_first_line(error)}; export "
            "it with --format onnx"
        ) from None


def openvino_package() -> Any:
    """The package. Raises: MissingExtra."""
    try:
        import openvino
    except ImportError:
        raise MissingExtra("openvino", "openvino") from None
    return openvino


def _first_line(error: RuntimeError) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), "no reason given")
