"""How rows become logits of a graph: batches sorted by length, each result handed back with its row's number."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinage.data.encoding import Ints, Row
from affinage.data.padding import batches_by_length, row_inputs
from affinage.runtime.facts import TOKENS, Outputs


class GraphEngine(ABC):
    """An engine that runs graphs of `runtime.onnx`; how, is its subclass's."""

    def __init__(self, *, pad_id: int, mask_id: int | None = None) -> None:
        self._pad_id = pad_id
        self._mask_id = mask_id
        self._names: list[str] = []
        """of the graph's inputs"""

    @abstractmethod
    def run(self, inputs: Mapping[str, Ints]) -> list[NDArray[np.float32]]:
        """The graph's outputs; inputs that it does not take are left out."""

    def padded(self, inputs: dict[str, Ints], pad_id: int) -> dict[str, Ints]:
        """The inputs (B, T) as the engine likes them: at least as large, texts and tokens added at the end."""
        return inputs

    def logits(self, rows: Sequence[Row], *, batch_size: int) -> Iterator[tuple[int, Outputs]]:
        """(index of the row, its outputs without padding) for every row, longest rows first."""
        for indices in batches_by_length(rows, batch_size, tokens=TOKENS):
            arrays = self.run(self._inputs([rows[i] for i in indices]))
            per_token = len(arrays) == 2 or arrays[0].ndim == 3
            for place, i in enumerate(indices):
                length = len(rows[i].input_ids)
                yield i, tuple(a[place, :length] if per_token else a[place] for a in arrays)

    def mask_logits(self, rows: Sequence[Row], *, batch_size: int) -> Iterator[tuple[int, Outputs]]:
        """(index of the row, vocabulary logits (M, V) at its mask tokens), longest rows first."""
        for indices in batches_by_length(rows, batch_size, tokens=TOKENS):
            inputs = self._inputs([rows[i] for i in indices])
            places = np.argwhere(inputs["input_ids"] == self._mask_id)
            (logits,) = self.run({**inputs, "positions": places})
            ends = np.cumsum(np.bincount(places[:, 0], minlength=len(indices)))[:-1]
            yield from ((i, (part,)) for i, part in zip(indices, np.split(logits, ends), strict=False))

    def _inputs(self, rows: Sequence[Row]) -> dict[str, Any]:
        return self.padded(
            row_inputs(rows, pad_id=self._pad_id, with_types="token_type_ids" in self._names), self._pad_id
        )
