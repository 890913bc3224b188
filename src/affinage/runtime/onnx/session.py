"""Graphs in ONNX Runtime, on the CPU."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinage.data.encoding import Ints
from affinage.errors import InputError, MissingExtra
from affinage.runtime.onnx.batches import GraphEngine


class OnnxEngine(GraphEngine):
    """A graph of `runtime.onnx`, run by ONNX Runtime on the CPU. Several threads may use it at once."""

    def __init__(
        self, graph: Path | str | bytes, *, pad_id: int, mask_id: int | None = None, threads: int | None = None
    ) -> None:
        """`graph`: a file, or its content. `threads`: None takes `default_threads()`.

        Raises: InputError where ONNX Runtime cannot load it; MissingExtra where that is not installed.
        """
        super().__init__(pad_id=pad_id, mask_id=mask_id)
        self._session = _session(graph, threads or default_threads())
        self._names = [one.name for one in self._session.get_inputs()]

    def run(self, inputs: Mapping[str, Ints]) -> list[NDArray[np.float32]]:
        """The graph's outputs; inputs that it does not take are left out."""
        found: list[NDArray[np.float32]] = self._session.run(None, {name: inputs[name] for name in self._names})
        return found


def default_threads() -> int:
    """What OMP_NUM_THREADS says, else as many as the process may use cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _session(graph: Path | str | bytes, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnxruntime", "runtime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    # Threads of a session spin after a run, waiting for the next, and take the cores from a second model, the tokenizer
    # or a server in the same process: two models that took turns ran at half their speed. They spin within a run only.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        given = graph if isinstance(graph, bytes) else str(graph)
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class but this
        where = "the graph" if isinstance(graph, bytes) else f"'{graph}'"
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{where} cannot be loaded by ONNX Runtime {onnxruntime.__version__}: {reason}") from None
