"""Training from the last whole checkpoint; not a step more where that one is the last."""

from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from affinage.training.checkpoints import rotate, seal
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
            trainer._load_from_checkpoint(str(checkpoint))
            return
    trainer.add_callback(SealCheckpoints())
    with stop, writing("the run's files", Path(str(trainer.args.output_dir)).parent):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


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
