"""What share of training goes into anything but the mathematics: data, masks, progress, logs."""

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Overhead(TrainerCallback):
    """Seconds in optimizer steps (forward, backward, update) and in what lies between them; to be the first callback.

    Left out: the time before the first step, and the gaps in which something was evaluated or saved. On a GPU what it
    was given and has not done by the end of a step counts where it is waited for: with the guards, that is the step.
    """

    def __init__(self) -> None:
        self.within, self.between = 0.0, 0.0
        self._began: float | None = None
        self._ended: float | None = None

    @property
    def share(self) -> float | None:
        """In [0, 1]; None where no two steps followed each other."""
        return self.between / (self.within + self.between) if self.between else None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._count()
        self._ended = time.perf_counter()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._ended = None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._ended = None

    def _count(self) -> None:
        """The step that ends now, and the gap before it, where both are known."""
        if self._began is not None and self._ended is not None:
            self.between += self._began - self._ended
            self.within += time.perf_counter() - self._began
