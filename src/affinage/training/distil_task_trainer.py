"""The trainer of sums of losses on a task's rows; scores on the valid part may select its checkpoint."""

from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerFast, TrainerCallback

from affinage.data.taught import TaughtRows
from affinage.recipe import Training
from affinage.training.arguments import total_steps, training_arguments
from affinage.training.cadence import EvaluateAtEnd
from affinage.training.run_folder import RunFolder
from affinage.training.task_trainer import Score, best_checkpoint, selected_by
from affinage.training.trainer import SumTrainer


class DistilTaskTrainer(SumTrainer):
    """With `score` its figures are the held-out ones, and the highest chooses the checkpoint; else the losses are."""

    def __init__(
        self,
        objective: nn.Module,
        training: Training,
        *,
        rows: TaughtRows,
        valid: TaughtRows,
        folder: RunFolder,
        tokenizer: PreTrainedTokenizerFast,
        score: Score | None,
        metric: str,
        processes: int = 1,
        callbacks: list[TrainerCallback],
    ) -> None:
        """`metric`: the name, among those that `score` gives, that selects the checkpoint."""
        chosen = {"include_num_input_tokens_seen": "non_padding"} if score is None else selected_by(metric)
        steps = total_steps(training, len(rows), processes=processes)
        super().__init__(
            objective,
            training_arguments(training, folder=folder, steps=steps, **chosen),
            rows=rows,
            held_out=valid,
            tokenizer=tokenizer,
            callbacks=[*callbacks, EvaluateAtEnd()],
        )
        self._score = score

    @property
    def best_checkpoint(self) -> Path | None:
        """The folder of the checkpoint with the highest score; None where the last weights are wanted."""
        return None if self._score is None else best_checkpoint(self)

    def evaluate(self, *args: object, **kwargs: object) -> dict[str, float]:
        """The scores of the present weights as `eval_<metric>`, or the means of the losses over the valid rows."""
        if self._score is None:
            return super().evaluate(*args, **kwargs)
        # The scorer puts the student in evaluation mode; every training step puts it back.
        metrics = {f"eval_{name}": value for name, value in self._score(self.losses.student).items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
