"""Training from the last whole checkpoint; not a step more where that one is the last."""

import logging
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from affinage.training.checkpoints import best_of, rotate, seal
from affinage.training.interruption import StopOnInterrupt
from affinage.training.processes import processes
from affinage.training.writing import writing


def train(trainer: Trainer, checkpoint: Path | None, *, stop: StopOnInterrupt) -> None:
    """Train to `max_steps`. The Trainer itself would take one step more from a checkpoint of the last step.

    Raises: KeyboardInterrupt after Ctrl-C, with a checkpoint written; WriteError where a checkpoint, a log or the next
    block of a stream cannot be.
    """
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if state.global_step >= trainer.args.max_steps:
            trainer.state = state
            state.best_model_checkpoint = _path(best_of(checkpoint))
            trainer._load_from_checkpoint(str(checkpoint))
            return
        trainer.add_callback(BestLiesBeside(checkpoint))
    trainer.add_callback(SealCheckpoints())
    told = logging.getLogger("transformers.trainer")
    told.addFilter(_is_true)
    try:
        with stop, writing("the run's files", Path(str(trainer.args.output_dir)).parent):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finally:
        told.removeFilter(_is_true)


class BestLiesBeside(TrainerCallback):
    """The best checkpoint so far, whose path is noted as it was called when it was written.

    The Trainer forgets it where no folder of that path is there: a run may be taken up from another folder, or moved.
    """

    def __init__(self, checkpoint: Path) -> None:
        """`checkpoint`: from which training goes on."""
        self._best = best_of(checkpoint)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        state.best_model_checkpoint = _path(self._best)


def _is_true(record: logging.LogRecord) -> bool:
    """Not what the Trainer says of that before it is put right."""
    return not record.getMessage().startswith("The best checkpoint ")


def _path(best: Path | None) -> str | None:
    return None if best is None else str(best)


class SealCheckpoints(TrainerCallback):
    """Notes the checksums of every checkpoint, and only then deletes older ones.

    The Trainer's own `save_total_limit` would delete before: killed in between, a run would have lost one for nothing.
    """

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        processes().wait_for_everyone()  # each has written the state of its random numbers
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir))
            seal(folder / f"checkpoint-{state.global_step}")
            rotate(folder)
