"""What a task's distillation is asked for: read, and found to fit together before anything is trained."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, set_seed

from affinage.data.examples import Example
from affinage.data.features import encode, stride_for
from affinage.data.unlabelled import read_unlabelled
from affinage.distillation.kernels import check_kernels
from affinage.distillation.objective import build_losses, fit_losses
from affinage.distillation.student import check_continued
from affinage.distillation.task_student import make_task_student
from affinage.errors import InputError, LossMisfit
from affinage.evaluation.evaluator import model_labels
from affinage.models.checkpoint import (
    check_fit,
    has_task_head,
    load_task_model,
    load_tokenizer,
    max_length,
    read_config,
    weights_fingerprint,
)
from affinage.models.layout import depth_of
from affinage.recipe import Recipe
from affinage.training.arguments import computes_in_bf16
from affinage.workflows.labelled_data import data_fingerprints
from affinage.workflows.task_cache import Identity, check_logits_cache, refuse_other_logits
from affinage.workflows.task_run import TaskRun, read_planned_run
from affinage.workflows.task_teachers import Teachers, judge_teachers, read_teachers, refuse_other_vocabulary

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskGiven:
    """A task's distillation: the run's inputs, its teachers, the model to start from, text without labels."""

    run: TaskRun
    teachers: Teachers
    init_from: str | Path | None
    unlabelled: tuple[Example, ...]
    unlabelled_source: str | None
    teacher_recipe: Recipe | None
    """None where the teacher is tuned already"""

    def logits_identity(self, teachers: Mapping[str, str]) -> Identity:
        """All that the teachers' logits on the training rows depend on; `teachers`: name -> sha256 of weights."""
        source = self.unlabelled_source
        return {
            "teacher": list(teachers.values()),
            "task": self.run.task.name,
            "data": {part: self.run.fingerprints[source] for part, source in self.run.data.sources.items()},
            "columns": self.run.columns,
            "unlabelled": None if source is None else list(data_fingerprints({"": source}).values()),
        }

    @property
    def identity(self) -> dict[str, Any]:
        """All that the student depends on."""
        source = self.unlabelled_source
        return {
            "verb": "distil",
            "recipe": self.run.recipe.sha256,
            "teacher_recipe": self.teacher_recipe and self.teacher_recipe.sha256,
            "teachers": self.teachers.fingerprints(),
            "from": None if self.init_from is None else weights_fingerprint(self.init_from),
            "task": self.run.task.name,
            "data": self.run.fingerprints,
            "columns": self.run.columns,
            "unlabelled": None if source is None else data_fingerprints({"": source}),
        }

    def student(self, teacher: PreTrainedModel) -> tuple[PreTrainedModel, tuple[int, ...] | None]:
        """The student to train, and the teacher's layers it starts from; None where it has other weights.

        Raises: InputError where the recipe's shape, or the model to start from, does not fit.
        """
        plan, seed = self.run.recipe, self.run.training.seed
        set_seed(seed)
        if self.init_from is None:
            student, layers = make_task_student(teacher, plan.student, self.run.task.kind)
            if not layers:
                log.warning(
                    "the student's layers start at random (student.init %s): give a general student with --from, or "
                    "text to make one with --corpus, or start from the teacher with student.init=layers, narrower: svd",
                    plan.student.init,
                )
                return student, None
            log.info("the student starts from layers %s of the teacher's %d", list(layers), depth_of(teacher.config))
            return student, layers
        student = load_task_model(
            self.init_from,
            self.run.task.kind,
            labels=self.run.data.labels,
            seed=seed,
            dropout=plan.student.dropout,
        )
        check_continued(plan.student, student)
        return student, None


def read_given(
    teachers: Sequence[str | Path],
    *,
    task: str,
    data: str | Path,
    plan: Recipe,
    init_from: str | Path | None,
    unlabelled: str | Path | None,
    teacher_recipe: str | Path,
    teacher_cache: str | Path | None,
    columns: Mapping[str, str] | None,
) -> TaskGiven:
    """By a recipe of stages on a task.

    Raises: LossMisfit where the recipe is none for these models; InputError or DataError for whatever cannot be used.
    """
    names = (*teachers, *plan.teachers)
    losses = []
    for stage in plan.stages:
        losses.append(build_losses(stage.losses, teacher=True, on="task"))
        computes_in_bf16(stage.training.precision)
        check_kernels(stage.training.kernels)
        check_logits_cache(stage)
        for key in ("assistant", "freeze"):
            if getattr(stage, key) is not None:
                raise InputError(f"stage '{stage.name}' is on a task, and {key} is for stages on text: leave it out")
        asked = frozenset[str]().union(*(loss.teacher_needs for loss in losses[-1])) - {"logits"}
        if len(names) > 1 and asked:
            raise LossMisfit(
                f"stage '{stage.name}' compares with the {', '.join(sorted(asked))} of one teacher, and there are "
                f"{len(names)}: their probabilities alone can be averaged; name one teacher, or another recipe"
            )
    run = read_planned_run(
        names[0], task=task, data=data, plan=plan, training=plan.stages[-1].training, columns=columns
    )
    found, labelled = read_teachers(names, run)
    run = replace(run, data=labelled)
    tuning = None
    if not found.tuned:
        tuning = Recipe.load(teacher_recipe)
        tuning.only_stage("finetune")
    if init_from is not None:
        _refuse_start(init_from, run, names[0])
    more: list[Example] = []
    if unlabelled is not None:
        more = read_unlabelled(run.task, unlabelled, columns=columns)
        encode(run.tokenizer.backend_tokenizer, more, max_length=run.length, stride=stride_for(run.length))
        log.info("%d examples without labels, which the teacher labels", len(more))
    source = None if unlabelled is None else str(unlabelled)
    given = TaskGiven(run, found, init_from, tuple(more), source, tuning)
    if teacher_cache is not None and found.tuned:
        refuse_other_logits(Path(teacher_cache), plan.stages, given.logits_identity(found.fingerprints()))
    student, _ = given.student(found.models[0])
    for of_stage in losses:
        fit_losses(of_stage, student, found.models[0])
    if found.tuned:
        judge_teachers(found, run)
    return given


def _refuse_start(init_from: str | Path, run: TaskRun, teacher: str | Path) -> None:
    """Raises: InputError where the student cannot go on from this model."""
    refuse_other_vocabulary(init_from, run.tokenizer, of=teacher)
    config = read_config(init_from)
    check_fit(load_tokenizer(init_from), config, where=init_from)
    if max_length(config) < run.length:
        raise InputError(
            f"model '{init_from}' takes {max_length(config)} tokens, and rows have {run.length}: "
            f"--set training.row_length={max_length(config)}"
        )
    if not has_task_head(init_from, run.task.kind) or run.task.kind == "span":
        return
    ours, theirs = list(run.data.labels), model_labels(load_task_model(init_from, run.task.kind))
    if len(ours) != len(theirs):
        log.info("the student's head is new: '%s' was tuned for %s", init_from, ", ".join(theirs))
    elif ours != theirs:
        raise InputError(
            f"model '{init_from}' has a head for the labels {', '.join(theirs)}, the teacher for {', '.join(ours)}; "
            "start from a model without a head"
        )
