"""The teachers of a task: tuned for it already, or first of all tuned by us; checked against the data's labels."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from affinage.data.task import Task
from affinage.errors import InputError
from affinage.evaluation.evaluator import model_labels, references
from affinage.evaluation.metrics import metric
from affinage.models.checkpoint import (
    has_task_head,
    load_task_model,
    load_tokenizer,
    max_length,
    read_config,
    task_of,
    weights_fingerprint,
)
from affinage.training.processes import processes
from affinage.workflows.baseline import majority
from affinage.workflows.finetune import finetune
from affinage.workflows.labelled_data import TaskData, labels_in, refuse_unknown_labels, rename_labels
from affinage.workflows.task_run import TaskRun

log = logging.getLogger(__name__)

_ENOUGH = 50
"""Valid rows: with fewer a good teacher may be unlucky."""


@dataclass(frozen=True)
class Teachers:
    """Models by name, the first of which gives the student its layers."""

    names: tuple[str | Path, ...]
    tuned: bool
    """whether the first one is fine-tuned for the task; the others are"""
    models: tuple[PreTrainedModel, ...]
    """before the first one is tuned, it has a fresh head"""

    def fingerprints(self) -> dict[str, str]:
        """Name -> sha256 of its weights."""
        return {str(name): weights_fingerprint(name) for name in self.names}


def read_teachers(names: Sequence[str | Path], run: TaskRun) -> tuple[Teachers, TaskData]:
    """The teachers, and the data with its labels spelt and ordered as theirs.

    Raises: InputError where one was tuned for something else, a further one is not tuned, their labels are not those
    of the data (in the same order, where these may be numbers), or their vocabularies differ.
    """
    task, first = run.task, names[0]
    tuned = has_task_head(first, task.kind)
    for name in names[1:]:
        if not has_task_head(name, task.kind):
            raise InputError(
                f"teacher '{name}' is not fine-tuned for task '{task.name}': only the first of several is tuned on the "
                f"way; run: affinage finetune {name} --task {task.name} --data DATA --out DIR"
            )
    for name in names if tuned else names[1:]:
        _refuse_other_task(name, task)
    for name in names[1:]:
        refuse_other_vocabulary(name, run.tokenizer, of=first)
    models = [load_task_model(name, task.kind, labels=None if tuned or i else run.data.labels) for i, name in
              enumerate(names)]  # fmt: skip
    data = run.data
    for name, model in zip(names, models, strict=True) if tuned else ():
        data = _labels_as(data, model, name, task)
    for name, model in zip(names[1:], models[1:], strict=True):
        if model.config.num_labels != models[0].config.num_labels or model_labels(model) != model_labels(models[0]):
            raise InputError(
                f"teacher '{name}' numbers its labels {_listed(model_labels(model))}, teacher '{first}' "
                f"{_listed(model_labels(models[0]))}: their answers cannot be averaged; fine-tune both on this data"
            )
        if max_length(model.config) < run.length:
            raise InputError(
                f"teacher '{name}' takes {max_length(model.config)} tokens, and rows have {run.length}: "
                f"--set training.row_length={max_length(model.config)}"
            )
    return Teachers(tuple(names), tuned, tuple(models)), data


def judge_teachers(teachers: Teachers, run: TaskRun) -> None:
    """Whether each scores more on the valid part than always giving the commonest answer; few rows are not asked.

    Raises: InputError where one does not, and the recipe's guard is to stop.
    """
    rule, name = run.recipe.stages[0].guards.bad_teacher, run.task.metrics[0]
    if rule == "off" or len(run.data.valid) < _ENOUGH:
        return
    simple = majority(run.data.train, run.data.valid, run.data.labels)
    floor, score = metric(name).score(simple, references(run.data.valid)), run.scorer()
    for teacher, model in zip(teachers.names, teachers.models, strict=True):
        model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
        found = score(model)[name]
        if found > floor:
            continue
        problem = (
            f"teacher '{teacher}' has {name} {found:.3f} on the valid part, and always giving the commonest answer "
            f"{floor:.3f}: it is not tuned for this, or for other labels in this order; name the model it was made "
            "from, which is then fine-tuned first"
        )
        if rule == "stop":
            raise InputError(f"{problem}. To train all the same: --set guards.bad_teacher=warn")
        log.warning("%s", problem)


def tune_teacher(
    teachers: Teachers,
    run: TaskRun,
    *,
    data: str | Path,
    out: Path,
    recipe: str | Path,
    overrides: Mapping[str, str],
    quiet: bool,
) -> Teachers:
    """The teachers with the first one fine-tuned into the folder `out`, or as it lies there already."""
    first = teachers.names[0]
    if not (out / "report.json").is_file():
        log.info("'%s' is not fine-tuned for task '%s': that comes first", first, run.task.name)
        finetune(
            first,
            task=run.task.name,
            data=data,
            out=out,
            recipe=recipe,
            overrides=overrides,
            columns=run.columns,
            quiet=quiet,
        )
    processes().wait_for_everyone()  # until the first has written it
    model = load_task_model(out, run.task.kind)
    return replace(teachers, names=(out, *teachers.names[1:]), tuned=True, models=(model, *teachers.models[1:]))


def refuse_other_vocabulary(name: str | Path, tokenizer: PreTrainedTokenizerFast, *, of: str | Path) -> None:
    """Raises: InputError where model `name` reads texts as other ids than `tokenizer`, which is that of model `of`."""
    if load_tokenizer(name).get_vocab() != tokenizer.get_vocab():
        raise InputError(
            f"model '{name}' has another vocabulary than the teacher '{of}': what both say of a text cannot be "
            "compared token by token; take one distilled from this teacher, or from what it was fine-tuned from"
        )


def _refuse_other_task(name: str | Path, task: Task) -> None:
    noted = task_of(read_config(name))
    if noted not in (None, task.name):
        raise InputError(
            f"teacher '{name}' is fine-tuned for task '{noted}', not '{task.name}'; name the model it was made from, "
            "which is then fine-tuned first"
        )


def _labels_as(data: TaskData, model: PreTrainedModel, name: str | Path, task: Task) -> TaskData:
    """The data with the labels as a teacher has them.

    Raises: InputError where it does not know one, or where labels may be numbers and it numbers them otherwise.
    """
    if task.kind in ("span", "regression"):
        return data
    theirs = model_labels(model)
    renamed = replace(
        data,
        train=rename_labels(data.train, theirs),
        valid=rename_labels(data.valid, theirs),
        test=rename_labels(data.test, theirs),
    )
    spelt = {label.casefold(): label for label in theirs}
    ours = [spelt.get(label.casefold(), label) for label in data.labels]
    if task.kind == "token":  # a type may never begin within an entity, and a teacher may not have a tag for that
        seen = {tag for part in (renamed.train, renamed.valid, renamed.test) for e in part for tag in labels_in(e)}
        ours = [label for label in ours if label in seen]
    cure = (
        f"fine-tune it on this data (affinage finetune MODEL --task {task.name} --data DATA --out DIR), or rename the "
        "labels"
    )
    if unknown := [label for label in ours if label not in theirs]:
        raise InputError(
            f"teacher '{name}' knows the labels {_listed(theirs)}, the data has {_listed(unknown)} besides: {cure}"
        )
    # Words are found by name, in whatever order; what a number means, their order says.
    if task.label_names and ours != [label for label in theirs if label in ours]:
        raise InputError(
            f"teacher '{name}' numbers its labels {_listed(theirs)}, task '{task.name}' and the data {_listed(ours)}: "
            f"where labels come as numbers, one of the two is wrong; {cure}"
        )
    for part in (renamed.train, renamed.valid, renamed.test):
        refuse_unknown_labels(part, theirs, where=f"teacher '{name}'")
    return replace(renamed, labels=tuple(theirs))


def _listed(labels: Sequence[str]) -> str:
    """At most ten labels."""
    return ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
