"""How rows become logits: batches sorted by length, each result handed back with its row's number."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from affinage.data.collate import pad_rows
from affinage.data.encoding import Row
from affinage.data.padding import batches_by_length
from affinage.models.encoder import forward_masked_lm
from affinage.models.layout import layout_of
from affinage.models.pooling import Mode, pool
from affinage.runtime.facts import TOKENS, Outputs
from affinage.signals import Batch


class TorchEngine:
    """A model in eval mode, run by PyTorch on the device it is on."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        pad_id: int,
        mask_id: int | None = None,
        pooling: Mode | None = None,
        threads: int | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        """`pooling`: make vectors of the encoder's last hidden states, without the head. `threads`: of the process."""
        if threads is not None:
            torch.set_num_threads(threads)
        self._dtype = dtype
        self._model = model
        self._pad_id = pad_id
        self._mask_id = mask_id
        self._pooling = pooling
        self._with_types = layout_of(model.config).token_type_embeddings is not None

    def logits(self, rows: Sequence[Row], *, batch_size: int) -> Iterator[tuple[int, Outputs]]:
        """(index of the row, its outputs without padding) for every row, longest rows first."""
        for indices in batches_by_length(rows, batch_size, tokens=TOKENS):
            batch = pad_rows([rows[i] for i in indices], pad_id=self._pad_id, with_types=self._with_types)
            with torch.inference_mode(), self._precision():
                tensors = self._outputs({k: v.to(self._model.device) for k, v in batch.items()})
            arrays = [t.float().cpu().numpy() for t in tensors]
            per_token = len(arrays) == 2 or arrays[0].ndim == 3
            for place, i in enumerate(indices):
                length = len(rows[i].input_ids)
                yield i, tuple(a[place, :length] if per_token else a[place] for a in arrays)

    def _outputs(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        if self._pooling is not None:
            encoder = self._model.get_submodule(layout_of(self._model.config).base)
            return (pool(encoder(**inputs).last_hidden_state, inputs["attention_mask"], self._pooling),)
        output = self._model(**inputs)
        return (output.start_logits, output.end_logits) if "start_logits" in output else (output.logits,)

    def mask_logits(self, rows: Sequence[Row], *, batch_size: int) -> Iterator[tuple[int, Outputs]]:
        """(index of the row, vocabulary logits (M, V) at its mask tokens), longest rows first."""
        for indices in batches_by_length(rows, batch_size, tokens=TOKENS):
            inputs = pad_rows([rows[i] for i in indices], pad_id=self._pad_id, with_types=self._with_types)
            inputs = {k: v.to(self._model.device) for k, v in inputs.items()}
            batch = Batch(
                input_ids=inputs["input_ids"],
                mask=inputs["attention_mask"].bool(),
                token_type_ids=inputs.get("token_type_ids"),
                selected=torch.eq(inputs["input_ids"], -1 if self._mask_id is None else self._mask_id),
            )
            with torch.inference_mode(), self._precision():
                signals = forward_masked_lm(self._model, batch, frozenset({"head"}))
                assert signals.head_input is not None  # "head" was asked for
                assert signals.head_weight is not None
                logits = torch.nn.functional.linear(signals.head_input, signals.head_weight, signals.head_bias)
            counts = batch.selected.sum(1).tolist() if batch.selected is not None else []
            parts = np.split(logits.float().cpu().numpy(), np.cumsum(counts)[:-1])
            yield from ((i, (part,)) for i, part in zip(indices, parts, strict=True))

    def _precision(self) -> AbstractContextManager[object]:
        """Products in bfloat16, norms and softmax in float32, where that was asked for."""
        return torch.autocast("cpu", torch.bfloat16) if self._dtype == "bfloat16" else nullcontext()
