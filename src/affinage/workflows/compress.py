"""`affinage compress`: a model and a plan -> a smaller or faster model, and the ledger of what each step cost."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedModel

from affinage.compression.forms import check_forms
from affinage.compression.plan import Plan
from affinage.compression.rehearsal import rehearse
from affinage.compression.run import State, check_plan, run_plan
from affinage.errors import InputError
from affinage.evaluation.example_scores import ExampleScores, write_example_scores
from affinage.evaluation.footprint import model_entry
from affinage.models.layout import usual_class_name
from affinage.models.shipped import located
from affinage.models.storage import save_model
from affinage.models.structure import structure_of
from affinage.recipe import Recipe
from affinage.report.card import model_card
from affinage.report.frontier import Variant
from affinage.report.ledger import LedgerEntry
from affinage.report.provenance import provenance
from affinage.report.report import Comparison, Report, Score
from affinage.training.run_folder import RunFolder, refuse_existing
from affinage.workflows.compress_given import Given, read_given
from affinage.workflows.compress_ways import ModelAlone, WithTask
from affinage.workflows.joined_training import joined
from affinage.workflows.task_scores import Beside, beside_teacher

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
    teacher: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    command: str | None = None,
) -> Report:
    """Run the steps of a plan on `model` (a folder or hub name) and write what comes of it to the folder `out`.

    `task` and `data`: the model is fine-tuned for this task, and steps are measured, recovered and scored on its rows.
    `corpus`: raw text; a masked language model is measured, recovered and scored on it, and vocabularies are trimmed to
    it. Without both, only steps that need no data can run. `teacher`: what recovery distils from, of the same
    vocabulary and labels; None: `model`. An interrupted run is taken up after its last whole step.

    Raises: InputError or DataError before any long work for whatever cannot be used; KeyboardInterrupt after Ctrl-C.
    """
    began = time.perf_counter()
    refuse_existing(out, overwrite=overwrite)
    steps = plan if isinstance(plan, Plan) else Plan.load(plan)
    steps.checked()
    given = read_given(model, plan=steps, task=task, data=data, corpus=corpus, columns=columns, teacher=teacher)
    built = check_plan(steps, given.ways(steps, RunFolder(Path(out), Path(out), overwrite=False)))
    check_forms(steps, built, given.start.model)
    recoveries = sum(bool(steps.recovery_of(i, made)) for i, made in enumerate(built))
    if teacher is not None and not recoveries:
        raise InputError(f"teacher '{teacher}': of recovery, and no step is followed by any; give --recover N")
    folder = RunFolder.open(Path(out), identity=given.identity(steps), overwrite=overwrite)
    ways = given.ways(steps, folder, quiet=quiet, answers=folder.partial / "answers" if recoveries > 1 else None)
    try:
        if ways.kept(0) is None:  # else the run was begun before, and is taken up
            rehearse(steps, built, given.start, ways)
        state, ledger = run_plan(steps, built, given.start, ways)
    except InputError:
        begun = any(ways.place(1).checkpoints.iterdir())
        if ways.kept(1) is None and not begun:  # nothing to lose, and the corrected call would be another run
            shutil.rmtree(folder.partial, ignore_errors=True)
        raise
    told = command or f"affinage compress {model} --plan … --out {out}"
    return write_compressed(given, steps, folder, ways, state, ledger, began=began, command=told)


def write_compressed(
    given: Given,
    plan: Plan,
    folder: RunFolder,
    ways: ModelAlone,
    state: State,
    ledger: tuple[LedgerEntry, ...],
    *,
    began: float,
    command: str,
    variants: tuple[Variant, ...] = (),
    beside: Callable[[Path], object] = lambda aside: None,
) -> Report:
    """Score what a plan made beside the model as it was, and write all of it to the run's output folder.

    `began`: `time.perf_counter()` when it was asked for; `variants`: others that were tried; `beside` adds files.
    """
    final, trained, scored, run = state.model, ways.trained(), None, given.run
    if isinstance(ways, WithTask):
        final_run = ways.run_of(state)
        final.config.affinage_task = final_run.task.name
        if final_run.task.no_answer:
            final_run.tune_no_answer_(final)
        scored = _renamed(beside_teacher(final_run, final, [given.start.model], teachers_run=ways.run))
    report = Report(
        command="compress",
        models=(
            model_entry(final, name="compressed", path=folder.out, base=given.model),
            model_entry(given.start.model, name="uncompressed", path=given.model, folder=located(given.model)),
        ),
        scores=() if scored is None else scored.scores,
        comparisons=() if scored is None else scored.comparisons,
        ledger=ledger,
        variants=variants,
        training=joined(trained) if trained else None,
        notes=() if run is None else run.data.notes,
        provenance=provenance(
            command=command,
            seed=plan.seed,
            recipe_sha256=None if given.recipe is None else given.recipe.sha256,
            data=given.fingerprints,
            seconds=time.perf_counter() - began,
        ),
    )

    def write(aside: Path) -> None:
        _write(aside, state, plan, report, recipe=given.recipe, source=Path(located(given.model)),
               base=str(given.model))  # fmt: skip
        if run is not None and scored is not None:
            write_example_scores(aside, ExampleScores(run.task.name, scored.examples))
        beside(aside)

    folder.finish(write)
    return report


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
