"""What every training run on labelled data does: read and check all of it first, train, keep the best checkpoint."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback, set_seed
from transformers.integrations.integration_utils import TensorBoardCallback

from affinage.data.batches import LabelledRows
from affinage.data.encoding import Row
from affinage.data.examples import Example, SpanExample
from affinage.data.features import encode, fitted, stride_for, targets
from affinage.data.task import Task, load_task
from affinage.distillation.kernels import check_kernels
from affinage.distillation.liger import fuse_norms_
from affinage.errors import InputError
from affinage.evaluation.evaluator import (
    Evaluation,
    evaluate_model,
    pad_id,
    predict_rows,
    references,
    takes_types,
    tuned_no_answer_threshold,
)
from affinage.evaluation.metrics import metric
from affinage.models.checkpoint import check_fit, load_tokenizer, max_length, read_config, weights_fingerprint
from affinage.models.flaubert_tokenizer import refuse_differing
from affinage.models.quickening import quicken_
from affinage.recipe import Recipe, StudentSpec, Training
from affinage.report.provenance import provenance
from affinage.report.report import Provenance, TrainingRun
from affinage.training.allocator import keep_big_buffers
from affinage.training.arguments import computes_in_bf16
from affinage.training.clock import Clock
from affinage.training.curves import curves
from affinage.training.guards import Guard
from affinage.training.interruption import StopOnInterrupt
from affinage.training.overhead import Overhead
from affinage.training.processes import processes
from affinage.training.progress import RichProgress
from affinage.training.resume import train
from affinage.training.run_folder import RunFolder
from affinage.training.task_trainer import Score, TaskTrainer
from affinage.training.threads import settle_threads
from affinage.workflows.labelled_data import TaskData, data_fingerprints, training_data

log = logging.getLogger(__name__)

_LOSSES = {"multi_label": "binary_cross_entropy", "regression": "squared_error"}
"""kind -> what the stock head minimises; cross-entropy for the others"""


@dataclass(frozen=True)
class TaskRun:
    """A run's inputs, read and checked: nothing that a person gave can fail after this."""

    model: str | Path
    task: Task
    recipe: Recipe
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerFast
    length: int
    """tokens a row may have"""
    columns: dict[str, str]
    data: TaskData
    fingerprints: dict[str, str]
    """file -> sha256"""
    rows: list[Row]
    """of the training examples"""
    began: float
    """`time.perf_counter()` when it was asked for"""

    @property
    def training(self) -> Training:
        """How the recipe's one stage is optimised."""
        return self.recipe.stages[0].training

    def open_folder(self, out: str | Path, *, verb: str, overwrite: bool) -> RunFolder:
        """The working folder, that of an interrupted run where it was this one."""
        identity = {
            "verb": verb,
            "recipe": self.recipe.sha256,
            "model": str(self.model),
            "weights": weights_fingerprint(self.model),
            "task": self.task.name,
            "data": self.fingerprints,
            "columns": self.columns,
        }
        with processes().main_process_first():
            return RunFolder.open(Path(out), identity=identity, overwrite=overwrite)

    def evaluate(self, model: PreTrainedModel, examples: Sequence[Example], *, name: str, split: str) -> Evaluation:
        """The scores of the trained `model`, called `name` in them."""
        return evaluate_model(
            model,
            self.tokenizer,
            self.task,
            examples,
            max_length=self.length,
            stride=stride_for(self.length),
            name=name,
            split=split,
            seeds=(self.training.seed,),
        )

    def scorer(self) -> Score:
        """What scores a model on the valid part, in which its rows are read once."""
        examples, expected = self.data.valid, references(self.data.valid)
        backend = self.tokenizer.backend_tokenizer
        rows = encode(backend, examples, max_length=self.length, stride=stride_for(self.length))

        def score(network: PreTrainedModel) -> dict[str, float]:
            predicted = predict_rows(network, examples, rows, pad_id=pad_id(self.tokenizer))
            return {name: metric(name).score(predicted, expected) for name in self.task.metrics}

        return score

    def tune_no_answer_(self, model: PreTrainedModel) -> None:
        """Note in the config, where it decides from now on, the no-answer threshold best on the valid part."""
        valid = [example for example in self.data.valid if isinstance(example, SpanExample)]
        length = self.length
        found = tuned_no_answer_threshold(model, self.tokenizer, valid, max_length=length, stride=stride_for(length))
        model.config.no_answer_threshold = found
        log.info(
            "no answer from a margin of %.3f on, tuned on %d questions (%s)", found, len(valid), self.data.valid_split
        )

    def provenance(self, command: str) -> Provenance:
        """The conditions of the run, which ends now."""
        return provenance(
            command=command,
            seed=self.training.seed,
            recipe_sha256=self.recipe.sha256,
            data=self.fingerprints,
            seconds=time.perf_counter() - self.began,
        )


def read_task_run(
    model: str | Path,
    *,
    task: str,
    data: str | Path,
    recipe: str | Path,
    overrides: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
) -> TaskRun:
    """Read everything, the model's weights aside. Raises: InputError or DataError for whatever cannot be used."""
    plan = Recipe.load(recipe, overrides)
    training = plan.only_stage("finetune").training
    _refuse_shape(plan.student)
    return read_planned_run(model, task=task, data=data, plan=plan, training=training, columns=columns)


def read_planned_run(
    model: str | Path,
    *,
    task: str,
    data: str | Path,
    plan: Recipe,
    training: Training,
    columns: Mapping[str, str] | None = None,
) -> TaskRun:
    """As `read_task_run`, by a recipe that was read already; rows are as long as `training` says."""
    began = time.perf_counter()
    wanted = load_task(task)
    computes_in_bf16(training.precision)
    check_kernels(training.kernels)
    config = read_config(model)
    tokenizer = load_tokenizer(model)
    check_fit(tokenizer, config, where=model)
    if wanted.kind in ("token", "span"):
        refuse_differing(tokenizer, where=model, what=f"task '{wanted.name}'")
    length = row_length(training, max_length(config), model)
    examples = training_data(wanted, data, columns=columns)
    rows = encode(tokenizer.backend_tokenizer, examples.train, max_length=length, stride=stride_for(length))
    if wanted.kind == "span":  # a question that leaves no room for its text is said now, not after training
        for part in (examples.valid, examples.test):
            encode(tokenizer.backend_tokenizer, part, max_length=length, stride=stride_for(length))
    _tell(examples, rows, length)
    return TaskRun(
        model=model,
        task=wanted,
        recipe=plan.model_copy(update={"task": wanted.name}),
        config=config,
        tokenizer=tokenizer,
        length=length,
        columns=dict(columns or {}),
        data=examples,
        fingerprints=data_fingerprints(examples.sources),
        rows=rows,
        began=began,
    )


def train_task_model(
    run: TaskRun,
    model: PreTrainedModel,
    folder: RunFolder,
    *,
    title: str,
    callbacks: Sequence[TrainerCallback] = (),
    quiet: bool = False,
) -> tuple[Path, TrainingRun]:
    """Train `model` in place, from the last whole checkpoint if there is one. The best checkpoint, and the run."""
    training = run.training
    set_seed(training.seed)
    keep_big_buffers()
    settle_threads()
    quicken_(model)
    if training.kernels == "liger":
        fuse_norms_(model)
    rows = LabelledRows(
        run.rows, targets(run.data.train, run.rows, run.data.labels), pad_id(run.tokenizer), takes_types(model)
    )
    stop, clock, overhead = StopOnInterrupt(), Clock(folder.partial / "seconds"), Overhead()
    trainer = TaskTrainer(
        model,
        training,
        rows=rows,
        folder=folder,
        score=run.scorer(),
        metric=run.task.metrics[0],
        processes=processes().num_processes,
        callbacks=[
            overhead,
            stop,
            clock,
            RichProgress(title, quiet=quiet),
            TensorBoardCallback(SummaryWriter(str(folder.logs))),
            *callbacks,
        ],
    )
    checkpoint = folder.last_checkpoint()
    guard = Guard(run.recipe.stages[0].guards)
    guard.watch(trainer, checkpoint)
    train(trainer, checkpoint, stop=stop)
    loss = _LOSSES.get(run.task.kind, "cross_entropy")
    last_loss = next((entry["loss"] for entry in reversed(trainer.state.log_history) if "loss" in entry), None)
    return trainer.best_checkpoint, TrainingRun(
        steps=trainer.state.global_step,
        tokens=int(trainer.state.num_input_tokens_seen),
        seconds=clock.seconds,
        overhead_share=overhead.share,
        losses={} if last_loss is None else {loss: last_loss},
        held_out={} if trainer.state.best_metric is None else {run.task.metrics[0]: trainer.state.best_metric},
        curves=curves(trainer.state.log_history, {"loss": loss}),
        findings=guard.findings,
    )


def _refuse_shape(spec: StudentSpec) -> None:
    """Raises: InputError where the recipe asks for another shape than that of the model."""
    asked = [key for key, value in spec if key != "dropout" and value != StudentSpec.model_fields[key].default]
    if asked:
        raise InputError(f"student.{asked[0]}: fine-tuning keeps the model's shape; of student only dropout can be set")


def row_length(training: Training, limit: int, model: str | Path) -> int:
    """Tokens a row may have: what the recipe says, or `limit` where the model takes no more."""
    if training.row_length > limit:
        log.info("rows have %d tokens, all that %s takes (the recipe allows %d)", limit, model, training.row_length)
    return min(training.row_length, limit)


def _tell(data: TaskData, rows: Sequence[Row], length: int) -> None:
    """What was read and cut, in the log."""
    total = len(data.train)
    valid, test = len(data.valid), len(data.test)
    log.info("%d rows to train on, %d valid (%s), %d %s", total, valid, data.valid_split, test, data.test_split)
    for note in data.notes:
        log.info("%s", note)
    cut = fitted(rows)
    for count, what in ((cut.truncated, "truncated"), (cut.strided, "read in overlapping windows")):
        if count:
            log.info("%d of %d training texts are longer than %d tokens: %s", count, total, length, what)
