"""One training stage of a task's student: its rows, training with resume, the best weights or the last ones."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter
from transformers import PreTrainedModel, TrainerCallback, TrainerState, set_seed
from transformers.integrations.integration_utils import TensorBoardCallback

from affinage.data.encoding import Row
from affinage.data.examples import Example
from affinage.data.features import Target, encode, stride_for, targets
from affinage.data.taught import TaughtRows
from affinage.data.unlabelled import no_target
from affinage.distillation.cache import TeacherCache
from affinage.distillation.objective import build_losses, head_of
from affinage.distillation.task_objective import TaskObjective
from affinage.evaluation.evaluator import pad_id, takes_types
from affinage.models.checkpoint import max_length
from affinage.models.quickening import quicken_
from affinage.models.storage import read_weights
from affinage.recipe import Stage
from affinage.report.report import TrainingRun
from affinage.training.allocator import keep_big_buffers
from affinage.training.arguments import total_steps
from affinage.training.clock import Clock
from affinage.training.curves import curves
from affinage.training.distil_task_trainer import DistilTaskTrainer
from affinage.training.guards import Guard
from affinage.training.interruption import StopOnInterrupt
from affinage.training.overhead import Overhead
from affinage.training.processes import processes
from affinage.training.progress import RichProgress
from affinage.training.resume import train
from affinage.training.run_folder import RunFolder
from affinage.training.sharding import make_whole_
from affinage.training.threads import settle_threads
from affinage.workflows.task_run import TaskRun, row_length

log = logging.getLogger(__name__)


def predicts(stage: Stage) -> bool:
    """Whether the stage trains the task's head: then its score on the valid part chooses the checkpoint."""
    return any("logits" in loss.needs for loss in build_losses(stage.losses, teacher=True, on="task"))


def stage_rows(
    run: TaskRun, stage: Stage, student: PreTrainedModel, unlabelled: Sequence[Example], *, part: str = "train"
) -> TaughtRows:
    """The rows of the train part, unlabelled ones behind them, or of the valid part, which has labels alone."""
    length = row_length(stage.training, max_length(run.config), run.model)
    backend, stride = run.tokenizer.backend_tokenizer, stride_for(length)
    labelled = run.data.train if part == "train" else run.data.valid
    rows: list[Row] = encode(backend, labelled, max_length=length, stride=stride)
    wanted: list[Target] = list(targets(labelled, rows, run.data.labels))
    head = head_of(student)
    assert head is not None
    if part == "train" and unlabelled:
        more = encode(backend, unlabelled, max_length=length, stride=stride)
        wanted += [no_target(row, head, int(student.config.num_labels or 0)) for row in more]
        rows += more
    return TaughtRows(rows, wanted, pad_id(run.tokenizer), takes_types(student), stage.training.batch_size)


@dataclass(frozen=True)
class StageRun:
    """What one stage is made of."""

    run: TaskRun
    stage: Stage
    teachers: Sequence[PreTrainedModel]
    rows: TaughtRows
    valid: TaughtRows
    folder: RunFolder
    cache: TeacherCache | None = None
    keep_last: bool = False
    """the weights after the last step are wanted, whatever those before it scored"""
    may_stay: bool = False
    """the weights before training are taken where none after it score as much; for that the guard scores them"""

    def train(
        self, student: PreTrainedModel, *, callbacks: Sequence[TrainerCallback] = (), quiet: bool = False
    ) -> TrainingRun:
        """Train the student in place, from the last whole checkpoint if there is one; it then has the weights to keep.

        Raises: KeyboardInterrupt after Ctrl-C, with a checkpoint written; CheckFailed where a guard stops it.
        """
        settings, scored = self.stage.training, predicts(self.stage) and not self.keep_last
        set_seed(settings.seed)
        keep_big_buffers()
        settle_threads()
        quicken_(student)
        objective = TaskObjective(student, self.stage.losses, teachers=self.teachers, cache=self.cache)
        if settings.kernels == "liger":
            objective.use_liger_()
        before = {name: tensor.clone() for name, tensor in student.state_dict().items()} if self.may_stay else None
        stop, clock, overhead = StopOnInterrupt(), Clock(self.folder.partial / "seconds"), Overhead()
        trainer = DistilTaskTrainer(
            objective,
            settings,
            rows=self.rows,
            valid=self.valid,
            folder=self.folder,
            tokenizer=self.run.tokenizer,
            score=self.run.scorer() if scored else None,
            metric=self.run.task.metrics[0],
            processes=processes().num_processes,
            callbacks=[
                overhead,
                stop,
                clock,
                RichProgress(self.stage.name, quiet=quiet),
                TensorBoardCallback(SummaryWriter(str(self.folder.logs))),
                *callbacks,
            ],
        )
        checkpoint = self.folder.last_checkpoint()
        guard = Guard(self.stage.guards)
        guard.watch(trainer, checkpoint)
        steps = total_steps(settings, len(self.rows), processes=processes().num_processes)
        log.info("stage '%s': %d steps of %d rows", self.stage.name, steps, settings.batch_size)
        train(trainer, checkpoint, stop=stop)
        make_whole_(objective)
        best = trainer.state.best_global_step or None
        if trainer.best_checkpoint is not None:
            _take_weights_(student, trainer.best_checkpoint)
            first, highest = _score_before(trainer.state, self.run.task.metrics[0]), trainer.state.best_metric
            if before is not None and first is not None and highest is not None and first > highest:
                best = 0
                student.load_state_dict(before)
                log.warning("training made nothing better (valid part: %.4f before it, %.4f at best after it): the "
                            "weights before it are kept", first, highest)  # fmt: skip
        told = _told(trainer.state, clock.seconds, objective.names, guard, best)
        return told.model_copy(update={"overhead_share": overhead.share})


def _take_weights_(student: PreTrainedModel, checkpoint: Path) -> None:
    weights = read_weights(checkpoint)
    with torch.no_grad():
        for name, tensor in student.state_dict().items():
            if name in weights:  # a tied weight is stored once
                tensor.copy_(weights[name])


def _score_before(state: TrainerState, metric: str) -> float | None:
    """What the weights before training scored, if they were."""
    key = f"eval_{metric}"
    return next((float(entry[key]) for entry in state.log_history if entry["step"] == 0 and key in entry), None)


def _told(state: TrainerState, seconds: float, names: Sequence[str], guard: Guard, best: int | None) -> TrainingRun:
    """`best`: the step whose weights are kept; None where that is the last."""
    history = state.log_history
    last = next((entry for entry in reversed(history) if names[0] in entry), {})
    held_out: dict[str, float] = next((e for e in reversed(history) if any(k.startswith("eval_") for k in e)), {})
    if best is not None:
        at_best = (e for e in history if e["step"] == best)
        held_out = next((e for e in at_best if any(k.startswith("eval_") for k in e)), held_out)
    return TrainingRun(
        steps=state.global_step,
        tokens=int(state.num_input_tokens_seen),
        seconds=seconds,
        losses={name: last[name] for name in ("loss", *names) if math.isfinite(last.get(name, math.nan))},
        held_out={k[5:]: v for k, v in held_out.items() if k.startswith("eval_") and k != "eval_seconds"},
        curves=curves(history, {name: name for name in ("loss", *names)}),
        findings=guard.findings,
    )
