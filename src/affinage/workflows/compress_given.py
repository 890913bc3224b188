"""What a compression is asked for: read, found to fit together, and how it is run."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from affinage.compression.plan import Plan
from affinage.compression.run import State
from affinage.data.corpus import corpus_files, fingerprints
from affinage.data.streams import as_stream
from affinage.distillation.objective import fit_stage
from affinage.errors import InputError
from affinage.evaluation.weight_files import stored_as, stored_tensor_bytes
from affinage.models.checkpoint import (
    check_fit,
    has_task_head,
    head_kind,
    load_masked_lm,
    load_model,
    load_tokenizer,
    max_length,
    read_config,
    weights_fingerprint,
)
from affinage.models.shipped import located
from affinage.recipe import Recipe
from affinage.training.run_folder import RunFolder
from affinage.workflows.compress_ways import ModelAlone, WithTask, WithText
from affinage.workflows.evaluate import fine_tuning
from affinage.workflows.task_run import TaskRun, read_planned_run
from affinage.workflows.task_teachers import read_teachers, refuse_other_vocabulary

log = logging.getLogger(__name__)

_ON_TASK: Mapping[str, Any] = {"training.learning_rate": 5e-5}
"""of a model whose folder does not say how it was fine-tuned; else the rate of that"""
_ON_TEXT: Mapping[str, Any] = {
    "training.learning_rate": 1e-4,
    "training.batch_size": 16,
    "losses": "[{name: soft_kl, weight: 0.8, params: {temperature: 2.0}}, {name: mlm, weight: 0.2}]",
}
"""what recovery changes in the recipes it trains by, where the plan names none: small steps, and losses that compare no
hidden states, whose width a plan may cut"""


@dataclass(frozen=True)
class Given:
    """The model, the rows or text, and how recovery trains."""

    model: str | Path
    start: State
    run: TaskRun | None
    """the rows of a task"""
    recipe: Recipe | None
    """how recovery trains; None where there is nothing to train on"""
    files: Sequence[Path | str]
    """raw text"""
    columns: Mapping[str, str]
    teacher: str | Path | None = None
    """what recovery distils from, where it is another than the model"""
    recovers_from: State | None = None

    @property
    def fingerprints(self) -> dict[str, str]:
        """File -> sha256 of the rows, else of the raw text."""
        if self.run is not None:
            return self.run.fingerprints
        return fingerprints(self.files) if self.files else {}

    def identity(self, plan: Plan) -> dict[str, Any]:
        """All that the result depends on."""
        found = {
            "verb": "compress",
            "plan": plan.sha256,
            "recipe": self.recipe and self.recipe.sha256,
            "model": str(self.model),
            **self._said_by(self.model),
            "corpus": fingerprints(self.files) if self.files else None,
        }
        return found if self.teacher is None else found | {"teacher": weights_fingerprint(self.teacher)}

    def _said_by(self, model: str | Path) -> dict[str, Any]:
        """All that what a model says of the rows depends on."""
        return {
            "weights": weights_fingerprint(model),
            "task": self.run and self.run.task.name,
            "data": self.fingerprints,
            "columns": dict(self.columns),
        }

    def ways(self, plan: Plan, folder: RunFolder, *, quiet: bool = False, answers: Path | None = None) -> ModelAlone:
        """With what the plan is run. `answers`: where the teacher's logits on a task's training rows are kept, for more
        than one recovery from it.
        """
        shared: dict[str, Any] = {"plan": plan, "start": self.start, "folder": folder, "files": self.files}
        shared["recovers_from"] = self.recovers_from
        shared["start_bytes"] = stored_tensor_bytes(located(self.model))
        if self.run is not None:
            said = self._said_by(self.teacher or self.model)
            return WithTask(**shared, quiet=quiet, run=self.run, answers=answers, made_of=said)
        if self.recipe is not None:
            return WithText(**shared, quiet=quiet, on_text=self.recipe.stages[0])
        return ModelAlone(**shared, quiet=quiet)


def read_given(
    model: str | Path,
    *,
    plan: Plan,
    task: str | None,
    data: str | Path | None,
    corpus: Sequence[str | Path],
    columns: Mapping[str, str] | None,
    teacher: str | Path | None = None,
) -> Given:
    """`teacher`: what recovery distils from, `model` itself where there is none.

    Raises: InputError or DataError for whatever cannot be used.
    """
    config, tokenizer = read_config(model), load_tokenizer(model)
    check_fit(tokenizer, config, where=model)
    files = corpus_files(corpus) if corpus else []
    if corpus and as_stream(files, Recipe.load("distilcamembert").stages[0]) is not None:
        raise InputError("compress reads raw text whole, and this corpus is streamed: give text files")
    if teacher is not None:
        refuse_other_vocabulary(model, load_tokenizer(teacher), of=teacher)
    run: TaskRun | None = None
    recipe: Recipe | None = None
    if task is not None and data is not None:
        recipe = _recipe(plan, "task", model)
        training = recipe.stages[0].training
        run = read_planned_run(model, task=task, data=data, plan=recipe, training=training, columns=columns)
        if teacher is not None and not has_task_head(teacher, run.task.kind):
            raise InputError(
                f"teacher '{teacher}' is not fine-tuned for task '{task}'; name a tuned one: affinage finetune "
                f"{teacher} --task {task} --data {data} --out DIR"
            )
        found, labelled = read_teachers([model] if teacher is None else [model, teacher], run)
        if not found.tuned:
            raise InputError(
                f"model '{model}' is not fine-tuned for task '{task}'; compress a tuned one: affinage finetune {model} "
                f"--task {task} --data {data} --out DIR"
            )
        run, network = replace(run, data=labelled), found.models[0]
        from_model = found.models[-1]
        fit_stage(recipe.stages[0], network, from_model, on="task")
    elif task is not None or data is not None:
        raise InputError("a task needs its rows and rows need a task: give both --task and --data, or neither")
    else:
        network = from_model = load_model(model)
        if corpus and head_kind(config) is None:
            recipe = _recipe(plan, "text", model)
            if teacher is not None:
                from_model, _ = load_masked_lm(teacher)
            fit_stage(recipe.stages[0], network, from_model, on="text")
    if teacher is not None and recipe is None:
        raise InputError(
            f"teacher '{teacher}': of recovery, and there is nothing to train on; name a task and its rows with --task "
            "and --data, or, for a masked language model, text with --corpus"
        )
    if (stored := stored_as(located(model))) in ("fp16", "bf16"):
        log.warning("'%s' is stored in %s; what no step packs is stored in fp32, twice as large", model, stored)
    start = State(network, tokenizer)
    recovers_from = None if teacher is None else State(from_model, tokenizer)
    return Given(model, start, run, recipe, files, columns or {}, teacher, recovers_from)


def _recipe(plan: Plan, on: Literal["text", "task"], model: str | Path) -> Recipe:
    """How recovery trains, of one stage. Raises: InputError where the plan's recipe is none for this."""
    name = plan.recipe or ("task" if on == "task" else "distilcamembert")
    own = {} if plan.recipe is not None else dict(_ON_TASK if on == "task" else _ON_TEXT)
    tuned = fine_tuning(located(model)) if on == "task" else None
    if tuned is not None:
        own["training.row_length"] = tuned.row_length
        if plan.recipe is None:
            own["training.learning_rate"] = tuned.learning_rate
    settings = {**own, "training.seed": plan.seed, **plan.settings}
    found = Recipe.load(name, {key: _yaml(value) for key, value in settings.items()})
    found = found.with_stages_on(on)
    if len(found.stages) != 1:
        raise InputError(f"recipe '{name}' has {len(found.stages)} stages on {on}; recovery takes one of one stage")
    limit = max_length(read_config(model))
    stage = found.stages[0]
    if stage.training.row_length > limit and on == "text":
        training = stage.training.model_copy(update={"row_length": limit})
        found = found.model_copy(update={"stages": (stage.model_copy(update={"training": training}),)})
    return found


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
