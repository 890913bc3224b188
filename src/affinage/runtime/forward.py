"""One forward pass of a model under one engine: what the benchmark times. Another engine is one more class."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import ClassVar, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from affinage.models.checkpoint import head_kind, load_masked_lm, load_task_model, read_config
from affinage.models.layout import layout_of

Ints = NDArray[np.int64]


class Forward(Protocol):
    """A loaded model, run on the CPU."""

    engine: ClassVar[str]
    """its name in reports"""

    @classmethod
    def load(cls, model: str | Path, *, threads: int) -> AbstractContextManager[Self]:
        """The model of a folder or hub name, ready; while the context is open it computes with `threads` threads.

        Raises: InputError where it cannot be loaded.
        """

    def run(self, input_ids: Ints, attention_mask: Ints) -> NDArray[np.float32]:
        """(B, T) each -> the first of the model's outputs, computed to its end."""


class TorchForward:
    """The stock model in float32 and eval mode, run by PyTorch; a masked language model without its vocabulary head."""

    engine: ClassVar[str] = "torch fp32"

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    @classmethod
    @contextmanager
    def load(cls, model: str | Path, *, threads: int) -> Iterator[Self]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield cls(_network(model))
        finally:
            torch.set_num_threads(before)

    def run(self, input_ids: Ints, attention_mask: Ints) -> NDArray[np.float32]:
        with torch.inference_mode():
            output = self._network(
                input_ids=torch.from_numpy(input_ids), attention_mask=torch.from_numpy(attention_mask)
            )
            first: NDArray[np.float32] = output[0].numpy()
        return first


def _network(model: str | Path) -> nn.Module:
    """The model as it answers: with the head of its task, without the vocabulary's.

    Fine-tuned models do not have that one, and `predict` applies it to one token of a text; over all tokens it would
    weigh as much as several layers. A bare encoder goes the same way, without the pooler that no task here uses.
    """
    config = read_config(model)
    kind = head_kind(config)
    if kind is not None:
        return load_task_model(model, kind)
    return load_masked_lm(model, allow_fresh_head=True)[0].get_submodule(layout_of(config).base)
