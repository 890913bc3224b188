"""What recovery training does for compression besides training: a method's own steps, and zeros that stay zero."""

from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class OnStep(Protocol):
    """A method that is told of every optimizer step, before it."""

    def on_step(self, model: PreTrainedModel, step: int, total: int) -> None:
        """Step `step`, from 0, of `total`."""
        ...


class DriveMethod(TrainerCallback):
    """Tells a method of every step."""

    def __init__(self, method: OnStep, model: PreTrainedModel) -> None:
        self._method, self._model = method, model

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._method.on_step(self._model, state.global_step, state.max_steps)


class HoldZeros(TrainerCallback):
    """Puts the weights that were zero before training back to zero after every step."""

    def __init__(self, model: PreTrainedModel) -> None:
        matrices = (p for p in model.parameters() if p.dim() >= 2 and p.is_floating_point())
        self._kept: list[tuple[Tensor, Tensor]] = [(p, p != 0) for p in matrices if bool((p == 0).any())]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        with torch.no_grad():
            for parameter, kept in self._kept:
                parameter.mul_(kept.to(parameter.device))
