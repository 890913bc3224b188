"""transformers' Trainer for fine-tuning on labelled rows; the score that selects the checkpoint comes from outside."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Sampler
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback

from affinage.data.batches import LabelledRows, LengthGroups
from affinage.models.storage import fill_, read_weights, save_model
from affinage.models.structure import structure_of
from affinage.recipe import Training
from affinage.training.arguments import total_steps, training_arguments
from affinage.training.cadence import EvaluateAtEnd, LogWithCheckpoints, TellEpoch
from affinage.training.run_folder import RunFolder

Score = Callable[[PreTrainedModel], Mapping[str, float]]
"""A model -> its scores on the valid part; the first one selects the checkpoint, higher being better."""


def selected_by(metric: str) -> dict[str, Any]:
    """Training arguments of a run whose best checkpoint has the highest score of this name."""
    return {
        "metric_for_best_model": f"eval_{metric}",
        "greater_is_better": True,
        "include_num_input_tokens_seen": "non_padding",
    }


def best_checkpoint(trainer: Trainer) -> Path:
    """The folder of the checkpoint with the highest score. Raises: RuntimeError where none was written."""
    best = trainer.state.best_model_checkpoint
    if best is None:
        raise RuntimeError("no checkpoint was written: train first")
    return Path(best)


class TaskTrainer(Trainer):
    """Minimises the stock model's own loss on its labels (cross-entropy; of a regression the squared error).

    Rows of like length share a batch.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        training: Training,
        *,
        rows: LabelledRows,
        folder: RunFolder,
        score: Score,
        metric: str,
        processes: int = 1,
        callbacks: list[TrainerCallback],
    ) -> None:
        """`metric`: the name, among those that `score` gives, that selects the checkpoint."""
        args = training_arguments(
            training,
            folder=folder,
            steps=total_steps(training, len(rows), processes=processes),
            load_best_model_at_end=True,
            **selected_by(metric),
        )
        self._sampler = LengthGroups(rows.lengths, args.train_batch_size, args.seed)
        super().__init__(
            model=model,
            args=args,
            train_dataset=rows,
            eval_dataset=[],  # `evaluate` below has its own; the Trainer only asks that there be one
            data_collator=rows.collate,
            callbacks=[*callbacks, TellEpoch(self._sampler), EvaluateAtEnd(), LogWithCheckpoints()],
        )
        self.remove_callback(PrinterCallback)  # it writes to standard output, which is for results
        # The stock losses are means over a batch: the Trainer divides by the accumulation steps itself.
        self.model_accepts_loss_kwargs = False
        self._score, self._network = score, model
        self._stock = structure_of(model).empty

    @property
    def best_checkpoint(self) -> Path:
        """The folder of the checkpoint with the highest score."""
        return best_checkpoint(self)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self._sampler

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self._stock:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            save_model(self._network, output_dir or str(self.args.output_dir), weights=state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self._stock:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            fill_(self._network, read_weights(resume_from_checkpoint), of=resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self._stock:
            super()._load_best_model()
        else:
            fill_(self._network, read_weights(self.best_checkpoint), of=self.best_checkpoint)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The scores of the present weights, as `eval_<metric>`."""
        # The scorer puts the model in eval mode; every training step puts it back.
        with _in_full_precision(self._network):
            metrics = {f"eval_{name}": value for name, value in self._score(self._network).items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


@contextmanager
def _in_full_precision(model: nn.Module) -> Iterator[None]:
    """Without the autocast that accelerate puts around a model's forward: scores are what is reported afterwards.

    In bfloat16 a value above 256 is even, and many examples get the same.
    """
    own, wrapped = vars(model).get("_original_forward"), vars(model).get("forward")
    if own is None or wrapped is None:
        yield
        return
    model.forward = own
    try:
        yield
    finally:
        model.forward = wrapped
