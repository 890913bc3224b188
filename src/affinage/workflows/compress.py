"""`affinage compress`: a model and a plan -> a smaller or faster model, and the ledger of what each step cost."""

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel

from affinage.compression.plan import Plan
from affinage.compression.run import State, check_plan, run_plan
from affinage.data.corpus import corpus_files, fingerprints
from affinage.data.streams import as_stream
from affinage.distillation.objective import build_losses, fit_losses
from affinage.errors import InputError
from affinage.evaluation.example_scores import ExampleScores, write_example_scores
from affinage.evaluation.footprint import model_entry
from affinage.models.checkpoint import (
    check_fit,
    head_kind,
    load_model,
    load_tokenizer,
    max_length,
    read_config,
    weights_fingerprint,
)
from affinage.models.layout import usual_class_name
from affinage.models.shipped import located
from affinage.models.storage import save_model
from affinage.models.structure import structure_of
from affinage.recipe import Recipe
from affinage.report.card import model_card
from affinage.report.provenance import provenance
from affinage.report.report import Comparison, Report, Score
from affinage.training.run_folder import RunFolder, refuse_existing
from affinage.workflows.compress_ways import ModelAlone, WithTask, WithText
from affinage.workflows.evaluate import fine_tuning
from affinage.workflows.joined_training import joined
from affinage.workflows.task_run import TaskRun, read_planned_run
from affinage.workflows.task_scores import Beside, beside_teacher
from affinage.workflows.task_teachers import read_teachers

log = logging.getLogger(__name__)

_ON_TASK: Mapping[str, Any] = {"training.learning_rate": 5e-5}
_ON_TEXT: Mapping[str, Any] = {
    "training.learning_rate": 1e-4,
    "training.batch_size": 16,
    "losses": "[{name: soft_kl, weight: 0.8, params: {temperature: 2.0}}, {name: mlm, weight: 0.2}]",
}
"""what recovery changes in the recipes it trains by, where the plan names none: small steps, and losses that compare no
hidden states, whose width a plan may cut"""
_NAMES = {"student": "compressed", "teacher": "uncompressed"}


def compress(
    model: str | Path,
    *,
    plan: Plan | str | Path,
    out: str | Path,
    task: str | None = None,
    data: str | Path | None = None,
    corpus: Sequence[str | Path] = (),
    columns: Mapping[str, str] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    command: str | None = None,
) -> Report:
    """Run the steps of a plan on `model` (a folder or hub name) and write what comes of it to the folder `out`.

    `task` and `data`: the model is fine-tuned for this task, and steps are measured, recovered and scored on its rows.
    `corpus`: raw text; a masked language model is measured, recovered and scored on it, and vocabularies are trimmed to
    it. Without both, only steps that need no data can run. An interrupted run is taken up after its last whole step.

    Raises: InputError or DataError before any long work for whatever cannot be used; KeyboardInterrupt after Ctrl-C.
    """
    began = time.perf_counter()
    refuse_existing(out, overwrite=overwrite)
    steps = plan if isinstance(plan, Plan) else Plan.load(plan)
    steps.checked()
    given = _read(model, plan=steps, task=task, data=data, corpus=corpus, columns=columns)
    run, start = given.run, given.start
    built = check_plan(steps, given.ways(steps, RunFolder(Path(out), Path(out), overwrite=False)))
    folder = RunFolder.open(Path(out), identity=given.identity(steps), overwrite=overwrite)
    ways = given.ways(steps, folder, quiet=quiet)
    try:
        state, ledger = run_plan(steps, built, start, ways)
    except InputError:
        if ways.kept(1) is None:  # nothing to lose, and the corrected call would be another run
            shutil.rmtree(folder.partial, ignore_errors=True)
        raise
    final, trained, scored = state.model, ways.trained(), None
    if isinstance(ways, WithTask):
        final_run = ways.run_of(state)
        final.config.affinage_task = final_run.task.name
        if final_run.task.no_answer:
            final_run.tune_no_answer_(final)
        scored = _renamed(beside_teacher(final_run, final, [ways.teacher(state)]))
    report = Report(
        command="compress",
        models=(
            model_entry(final, name="compressed", path=out, base=model),
            model_entry(start.model, name="uncompressed", path=model, folder=located(model)),
        ),
        scores=() if scored is None else scored.scores,
        comparisons=() if scored is None else scored.comparisons,
        ledger=ledger,
        training=joined(trained) if trained else None,
        notes=() if run is None else run.data.notes,
        provenance=provenance(
            command=command or f"affinage compress {model} --plan … --out {out}",
            seed=steps.seed,
            recipe_sha256=None if given.recipe is None else given.recipe.sha256,
            data=given.fingerprints,
            seconds=time.perf_counter() - began,
        ),
    )

    def write(aside: Path) -> None:
        _write(aside, state, steps, report, recipe=given.recipe, source=Path(located(model)), base=str(model))
        if run is not None and scored is not None:
            write_example_scores(aside, ExampleScores(run.task.name, scored.examples))

    folder.finish(write)
    return report


@dataclass(frozen=True)
class _Given:
    """What a compression is asked for: read, and found to fit together."""

    model: str | Path
    start: State
    run: TaskRun | None
    """the rows of a task"""
    recipe: Recipe | None
    """how recovery trains; None where there is nothing to train on"""
    files: Sequence[Path | str]
    """raw text"""
    columns: Mapping[str, str]

    @property
    def fingerprints(self) -> dict[str, str]:
        """File -> sha256 of the rows, else of the raw text."""
        if self.run is not None:
            return self.run.fingerprints
        return fingerprints(self.files) if self.files else {}

    def identity(self, plan: Plan) -> dict[str, Any]:
        """All that the result depends on."""
        return {
            "verb": "compress",
            "plan": plan.sha256,
            "recipe": self.recipe and self.recipe.sha256,
            "model": str(self.model),
            "weights": weights_fingerprint(self.model),
            "task": self.run and self.run.task.name,
            "data": self.fingerprints,
            "columns": dict(self.columns),
            "corpus": fingerprints(self.files) if self.files else None,
        }

    def ways(self, plan: Plan, folder: RunFolder, *, quiet: bool = False) -> ModelAlone:
        """With what the plan is run."""
        shared: dict[str, Any] = {"plan": plan, "start": self.start, "folder": folder, "files": self.files}
        if self.run is not None:
            return WithTask(**shared, quiet=quiet, run=self.run)
        if self.recipe is not None:
            return WithText(**shared, quiet=quiet, on_text=self.recipe.stages[0])
        return ModelAlone(**shared, quiet=quiet)


def _read(
    model: str | Path,
    *,
    plan: Plan,
    task: str | None,
    data: str | Path | None,
    corpus: Sequence[str | Path],
    columns: Mapping[str, str] | None,
) -> _Given:
    """Raises: InputError or DataError for whatever cannot be used."""
    config, tokenizer = read_config(model), load_tokenizer(model)
    check_fit(tokenizer, config, where=model)
    files = corpus_files(corpus) if corpus else []
    if corpus and as_stream(files, Recipe.load("distilcamembert").stages[0]) is not None:
        raise InputError("compress reads raw text whole, and this corpus is streamed: give text files")
    run: TaskRun | None = None
    recipe: Recipe | None = None
    if task is not None and data is not None:
        recipe = _recipe(plan, "task", model)
        training = recipe.stages[0].training
        run = read_planned_run(model, task=task, data=data, plan=recipe, training=training, columns=columns)
        found, labelled = read_teachers([model], run)
        if not found.tuned:
            raise InputError(
                f"model '{model}' is not fine-tuned for task '{task}'; compress a tuned one: affinage finetune {model} "
                f"--task {task} --data {data} --out DIR"
            )
        run, network = replace(run, data=labelled), found.models[0]
        _fit(recipe, network, on="task")
    elif task is not None or data is not None:
        raise InputError("a task needs its rows and rows need a task: give both --task and --data, or neither")
    else:
        network = load_model(model)
        if corpus and head_kind(config) is None:
            recipe = _recipe(plan, "text", model)
            _fit(recipe, network, on="text")
    return _Given(model, State(network, tokenizer), run, recipe, files, columns or {})


def _fit(recipe: Recipe, network: PreTrainedModel, *, on: Literal["text", "task"]) -> None:
    """Raises: InputError where the recipe's losses cannot compare the model with itself."""
    fit_losses(build_losses(recipe.stages[0].losses, teacher=True, on=on), network, network)


def _recipe(plan: Plan, on: Literal["text", "task"], model: str | Path) -> Recipe:
    """How recovery trains, of one stage. Raises: InputError where the plan's recipe is none for this."""
    name = plan.recipe or ("task" if on == "task" else "distilcamembert")
    own = {} if plan.recipe is not None else dict(_ON_TASK if on == "task" else _ON_TEXT)
    tuned = fine_tuning(located(model)) if on == "task" else None
    if tuned is not None:
        own["training.row_length"] = tuned.row_length
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


def _renamed(found: Beside) -> Beside:
    """With the names of a compression in its scores."""

    def called(score: Score) -> Score:
        return score.model_copy(update={"model": _NAMES.get(score.model, score.model)})

    def compared(one: Comparison) -> Comparison:
        names = {"model": _NAMES[one.model], "reference": _NAMES[one.reference]}
        return one.model_copy(update=names)

    scores = tuple(called(score) for score in found.scores)
    return replace(found, scores=scores, comparisons=tuple(map(compared, found.comparisons)))


def _write(
    aside: Path, state: State, plan: Plan, report: Report, *, recipe: Recipe | None, source: Path, base: str
) -> None:
    """Model, tokenizer, plan, report, card; the recipe by which rows are as long as they were."""
    made: PreTrainedModel = state.model
    save_model(made, aside)
    state.tokenizer.save_pretrained(aside)
    (aside / "plan.yaml").write_text(plan.to_yaml(), encoding="utf-8")
    (aside / "report.json").write_text(report.to_json(), encoding="utf-8")
    if recipe is not None:
        (aside / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    elif (source / "recipe.yaml").is_file():
        shutil.copy(source / "recipe.yaml", aside)
    card = model_card(
        report,
        base=base,
        architecture=usual_class_name(type(made).__name__),
        recipe="compressed",
        made=f"Made with affinage {report.provenance.affinage} by `affinage compress` from `{Path(base).name}`: "
        f"{plan.title}\n(`plan.yaml` beside this file).",
        stock=structure_of(made).empty,
    )
    (aside / "README.md").write_text(card, encoding="utf-8")
