"""What happens when, beside the Trainer's own schedule: each epoch's order, a log at every checkpoint."""

from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class EpochOrder(Protocol):
    """A sampler whose order depends on the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        ...


class TellEpoch(TrainerCallback):
    """Tells the sampler its epoch. The Trainer's own call does not reach it where a run of several processes resumes in
    the middle of an epoch, and the epochs after it would repeat the first one's order.
    """

    def __init__(self, sampler: EpochOrder) -> None:
        self._sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._sampler.set_epoch(int(state.epoch or 0))


class LogWithCheckpoints(TrainerCallback):
    """Logs at every checkpoint: a mean loss reaches back to the last log, and a resumed run must give the same one."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if control.should_save:
            control.should_log = True


class EvaluateAtEnd(TrainerCallback):
    """Scores the last step too, where the evenly spread evaluations do not fall on it."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
            control.should_save = True
        return control
