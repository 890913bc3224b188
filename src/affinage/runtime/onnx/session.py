"""How rows become logits in ONNX Runtime: batches sorted by length, each result handed back with its row's number."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinage.data.encoding import Ints, Row
from affinage.data.padding import batches_by_length, row_inputs
from affinage.errors import InputError, MissingExtra
from affinage.runtime.facts import TOKENS, Outputs


class OnnxEngine:
    """A graph of `runtime.onnx`, run by ONNX Runtime on the CPU."""

    def __init__(
        self, graph: Path | str | bytes, *, pad_id: int, mask_id: int | None = None, threads: int | None = None
    ) -> None:
        """`graph`: a file, or its content. `threads`: None takes `default_threads()`.

        Raises: InputError where ONNX Runtime cannot load it; MissingExtra where that is not installed.
        """
        self._session = _session(graph, threads or default_threads())
        self._inputs = [one.name for one in self._session.get_inputs()]
        self._pad_id = pad_id
        self._mask_id = mask_id

    def run(self, inputs: Mapping[str, Ints]) -> list[NDArray[np.float32]]:
        """The graph's outputs; inputs that it does not take are left out."""
        found: list[NDArray[np.float32]] = self._session.run(None, {name: inputs[name] for name in self._inputs})
        return found

    def logits(self, rows: Sequence[Row], *, batch_size: int) -> Iterator[tuple[int, Outputs]]:
        """(index of the row, its outputs without padding) for every row, longest rows first."""
        for indices in batches_by_length(rows, batch_size, tokens=TOKENS):
            arrays = self.run(row_inputs([rows[i] for i in indices], pad_id=self._pad_id, with_types=True))
            per_token = len(arrays) == 2 or arrays[0].ndim == 3
            for place, i in enumerate(indices):
                length = len(rows[i].input_ids)
                yield i, tuple(a[place, :length] if per_token else a[place] for a in arrays)

    def mask_logits(self, rows: Sequence[Row], *, batch_size: int) -> Iterator[tuple[int, Outputs]]:
        """(index of the row, vocabulary logits (M, V) at its mask tokens), longest rows first."""
        for indices in batches_by_length(rows, batch_size, tokens=TOKENS):
            inputs = row_inputs([rows[i] for i in indices], pad_id=self._pad_id, with_types=True)
            places = np.argwhere(inputs["input_ids"] == self._mask_id)
            (logits,) = self.run({**inputs, "positions": places})
            ends = np.cumsum(np.bincount(places[:, 0], minlength=len(indices)))[:-1]
            yield from ((i, (part,)) for i, part in zip(indices, np.split(logits, ends), strict=True))


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
    try:
        given = graph if isinstance(graph, bytes) else str(graph)
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class but this
        where = "the graph" if isinstance(graph, bytes) else f"'{graph}'"
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{where} cannot be loaded by ONNX Runtime {onnxruntime.__version__}: {reason}") from None
