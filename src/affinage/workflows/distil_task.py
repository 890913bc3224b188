"""`affinage distil --task`: a teacher and the rows of a task -> a student tuned for it, stage by stage, and scored."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainerCallback

from affinage.data.checksums import make_durable
from affinage.data.corpus import corpus_files, fingerprints, in_order
from affinage.data.streams import as_stream
from affinage.data.task import Kind
from affinage.errors import InputError, LossMisfit
from affinage.evaluation.example_scores import ExampleScores, write_example_scores
from affinage.evaluation.footprint import model_entry
from affinage.models.checkpoint import load_task_model
from affinage.models.shipped import located
from affinage.models.storage import save_model
from affinage.recipe import Recipe
from affinage.report.report import Report, TrainingRun
from affinage.training.model_folder import write_model_folder
from affinage.training.processes import processes
from affinage.training.run_folder import RunFolder, refuse_existing
from affinage.workflows.distil import distil
from affinage.workflows.found import made_from
from affinage.workflows.general_stages import check_in_turn
from affinage.workflows.joined_training import joined
from affinage.workflows.task_cache import logits_cache, refuse_other_logits
from affinage.workflows.task_given import TaskGiven, read_given
from affinage.workflows.task_scores import beside_teacher
from affinage.workflows.task_stage import StageRun, stage_rows
from affinage.workflows.task_teachers import tune_teacher

log = logging.getLogger(__name__)

DEFAULT_RECIPES = ("tinybert-task", "task")
"""the better one under an equal budget (docs/choosing.md); one that fits every family, depth and number of teachers"""


def distil_task(
    teacher: str | Path,
    *,
    task: str,
    data: str | Path,
    out: str | Path,
    recipe: str | Path | None = None,
    corpus: Sequence[str | Path] = (),
    more_teachers: Sequence[str | Path] = (),
    init_from: str | Path | None = None,
    unlabelled: str | Path | None = None,
    teacher_recipe: str | Path = "finetune",
    teacher_cache: str | Path | None = None,
    overrides: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    command: str | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Report:
    """Distil a teacher into a student for one task; student, scores and what is kept of the teacher's go to `out`.

    `recipe`: None takes the first of `DEFAULT_RECIPES` whose losses fit these models.
    A teacher that is no task model yet is fine-tuned first by `teacher_recipe`, into `out`/teacher. `more_teachers`:
    task models whose probabilities are averaged with the first one's, as those that the recipe names. `init_from`: a
    general student to start from; None takes the teacher's layers. `unlabelled`: more text, which the teachers label.
    `corpus`: raw text for the recipe's stages on text, which then come first. `teacher_cache`: a folder that keeps what
    the teachers say of each row, for later epochs and other runs.

    Raises: InputError or DataError before any long work for whatever cannot be used; KeyboardInterrupt after Ctrl-C,
    with a checkpoint written that the same call takes up.
    """
    refuse_existing(out, overwrite=overwrite)

    def read_by(name: str | Path) -> tuple[Recipe, TaskGiven]:
        plan = Recipe.load(name, overrides)
        if corpus and all(stage.on != "text" for stage in plan.stages):
            raise InputError(
                f"recipe '{plan.name}' has no stage on text, which --corpus would feed: leave --corpus out, or name a "
                "recipe with stages on both, such as --recipe tinybert-6"
            )
        if corpus:
            check_in_turn(teacher, plan.with_stages_on("text"), init_from)
        return plan, read_given(
            (teacher, *more_teachers),
            task=task,
            data=data,
            plan=plan.with_stages_on("task"),
            init_from=init_from,
            unlabelled=unlabelled,
            teacher_recipe=teacher_recipe,
            teacher_cache=teacher_cache,
            columns=columns,
        )

    plan, given = _by_default(read_by) if recipe is None else read_by(recipe)
    left = [stage.name for stage in plan.stages if stage.on == "text"]
    if left and not corpus:
        log.info("left out, since no --corpus feeds it: stage %s", ", ".join(left))
    identity = {**given.identity, "corpus": _corpus_fingerprints(corpus, plan)}
    with processes().main_process_first():
        folder = RunFolder.open(Path(out), identity=identity, overwrite=overwrite)
    if teacher_cache is not None and not given.teachers.tuned and not any(folder.partial.glob(f"{_TEACHER}*")):
        with folder.preparing():  # nothing can have been asked of a teacher that is yet to be tuned
            refuse_other_logits(Path(teacher_cache), given.run.recipe.stages, given.logits_identity({}))
    if corpus:
        general = folder.partial / "general"
        if not (general / "report.json").is_file():
            distil(teacher, corpus=corpus, out=general, recipe=_text_only(plan), init_from=init_from, quiet=quiet)
        processes().wait_for_everyone()  # until the first has written it
        given = replace(given, init_from=general)
    run, teachers = given.run, given.teachers
    if not teachers.tuned:
        teachers = tune_teacher(
            teachers,
            run,
            data=data,
            out=folder.partial / _TEACHER,
            recipe=teacher_recipe,
            overrides={"training.seed": str(run.training.seed)},
            quiet=quiet,
        )
    said = given.logits_identity(teachers.fingerprints())
    student, layers = given.student(teachers.models[0])
    trained = []
    for number, stage in enumerate(run.recipe.stages, start=1):
        place = _stage_folder(folder, number)
        if not (place.partial / _DONE).is_dir():
            rows = stage_rows(run, stage, student, given.unlabelled)
            valid = stage_rows(run, stage, student, (), part="valid")
            cache = logits_cache(
                stage,
                rows,
                teachers.models,
                shared=None if teacher_cache is None else Path(teacher_cache),
                own=place.partial / "teacher",
                made_of=said,
            )
            stage_run = StageRun(run, stage, teachers.models, rows, valid, place, cache)
            told = stage_run.train(student, callbacks=callbacks, quiet=quiet)
            if processes().is_main_process:
                _keep(student, told, place)
            processes().wait_for_everyone()
        shutil.rmtree(place.checkpoints, ignore_errors=True)
        student, told = _kept(place, run.task.kind)
        trained.append((stage.name, told))
    if layers is not None:
        student.config.affinage_layers = list(layers)
    student.config.affinage_task = run.task.name
    if run.task.no_answer:
        run.tune_no_answer_(student)
    found = beside_teacher(run, student, teachers.models)
    paths = teachers.names if given.teachers.tuned else (Path(out) / _TEACHER, *teachers.names[1:])
    report = Report(
        command="distil",
        models=(
            model_entry(student, name="student", path=out, base=teacher),
            *(
                model_entry(model, name=name, path=path, base=made_from(place), folder=located(place))
                for name, path, place, model in zip(found.teachers, paths, teachers.names, teachers.models, strict=True)
            ),
        ),
        scores=found.scores,
        comparisons=found.comparisons,
        training=joined(trained),
        notes=run.data.notes,
        provenance=run.provenance(command or f"affinage distil {teacher} --task {task} --data {data} --out {out}"),
    )
    run.tokenizer.model_max_length = run.length  # longer rows would meet positions that were never fine-tuned

    def write(aside: Path) -> None:
        write_model_folder(
            aside, model=student, tokenizer=run.tokenizer, recipe=run.recipe, report=report, base=str(teacher)
        )
        write_example_scores(aside, ExampleScores(run.task.name, found.examples))
        if not given.teachers.tuned:
            shutil.copytree(folder.partial / _TEACHER, aside / _TEACHER)
        for number in range(1, len(run.recipe.stages) + 1):
            shutil.copytree(_stage_folder(folder, number).logs, aside / "runs" / f"stage-{number}")

    if processes().is_main_process:
        folder.finish(write)
    return report


def _by_default(read_by: Callable[[str], tuple[Recipe, TaskGiven]]) -> tuple[Recipe, TaskGiven]:
    """By the first default recipe that fits."""
    first, second = DEFAULT_RECIPES
    try:
        return read_by(first)
    except LossMisfit as misfit:
        log.info("recipe '%s' is taken, for '%s' does not fit: %s", second, first, misfit)
        return read_by(second)


def _text_only(plan: Recipe) -> Recipe:
    return plan.with_stages_on("text")


def _corpus_fingerprints(corpus: Sequence[str | Path], plan: Recipe) -> dict[str, Any] | None:
    if not corpus:
        return None
    files = corpus_files(corpus)
    stream = as_stream(files, _text_only(plan).stages[0])
    return in_order(files, fingerprints(files) if stream is None else stream.fingerprints())


_TEACHER = "teacher"
"""The folder, in the output, of a teacher that was tuned on the way."""
_DONE = "done"
"""The folder, in a stage's, of the student that the stage made; there once it is whole."""


def _stage_folder(folder: RunFolder, number: int) -> RunFolder:
    """Where a stage works, within the run's own folder."""
    place = RunFolder(folder.out, folder.partial / f"stage-{number}", overwrite=False)
    for path in (place.checkpoints, place.logs):
        path.mkdir(parents=True, exist_ok=True)
    return place


def _keep(student: PreTrainedModel, told: TrainingRun, place: RunFolder) -> None:
    """Write what a stage made, whole or not at all."""
    aside = place.partial / f"{_DONE}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    save_model(student, aside)
    (aside / "training.json").write_text(told.model_dump_json(), encoding="utf-8")
    make_durable(aside)
    aside.rename(place.partial / _DONE)


def _kept(place: RunFolder, kind: Kind) -> tuple[PreTrainedModel, TrainingRun]:
    """What a stage made, in this run or in one that was interrupted."""
    done = place.partial / _DONE
    text = (done / "training.json").read_text(encoding="utf-8")
    return load_task_model(done, kind), TrainingRun.model_validate_json(text)
