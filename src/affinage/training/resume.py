"""Training from the last whole checkpoint; not a step more where that one is the last."""

from pathlib import Path

from transformers import Trainer, TrainerState

from affinage.training.interruption import StopOnInterrupt


def train(trainer: Trainer, checkpoint: Path | None, *, stop: StopOnInterrupt) -> None:
    """Train to `max_steps`. The Trainer itself would take one step more from a checkpoint of the last step.

    Raises: KeyboardInterrupt after Ctrl-C, with a checkpoint written.
    """
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if state.global_step >= trainer.args.max_steps:
            trainer.state = state
            trainer._load_from_checkpoint(str(checkpoint))
            return
    with stop:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
