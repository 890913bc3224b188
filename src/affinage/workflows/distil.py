"""`affinage distil`: a teacher and raw text -> a student with fewer layers, before any fine-tuning."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast, set_seed

from affinage.data.corpus import corpus_files, fingerprints, in_order
from affinage.data.rows import PackedRows
from affinage.data.streams import Stream, as_stream
from affinage.data.token_cache import token_folder
from affinage.distillation.kernels import check_kernels
from affinage.distillation.objective import Objective, build_losses, fit_losses
from affinage.distillation.student import check_continued, make_student
from affinage.errors import InputError
from affinage.evaluation.footprint import model_entry
from affinage.models.checkpoint import check_fit, load_masked_lm, load_tokenizer, max_length
from affinage.models.freezing import check_freeze
from affinage.models.layout import depth_of
from affinage.models.shipped import located
from affinage.recipe import Recipe, Stage
from affinage.report.provenance import provenance
from affinage.report.report import Report
from affinage.training.arguments import computes_in_bf16
from affinage.training.model_folder import write_model_folder
from affinage.training.processes import processes
from affinage.training.run_folder import RunFolder, refuse_existing
from affinage.workflows.corpus_stage import check_row_length, corpus_rows, train_stage
from affinage.workflows.general_stages import distil_in_turn, identity_of
from affinage.workflows.teacher_states import check_teacher_cache, teacher_cache

log = logging.getLogger(__name__)


def distil(
    teacher: str | Path,
    *,
    corpus: Sequence[str | Path],
    out: str | Path,
    recipe: str | Path | Recipe = "distilcamembert",
    init_from: str | Path | None = None,
    overrides: Mapping[str, str] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    command: str | None = None,
) -> Report:
    """General distillation of a masked language model on raw text; the student is written to the folder `out`.

    `init_from` goes on with an earlier student instead of starting from the teacher's layers: with its shape, and the
    teacher's vocabulary. Of the recipe, the stages on text are run; several follow one another.

    Raises: InputError before any long work for whatever cannot be used.
    """
    began = time.perf_counter()
    refuse_existing(out, overwrite=overwrite)
    plan = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe, overrides)
    text = plan.with_stages_on("text")
    if left := [stage.name for stage in plan.stages if stage.on == "task"]:
        log.info("left out, since no --task and --data feed it: stage %s", ", ".join(left))
    if len(text.stages) > 1 or text.stages[0].assistant is not None:
        return distil_in_turn(
            teacher,
            text,
            corpus=corpus,
            out=out,
            init_from=init_from,
            overwrite=overwrite,
            command=command or f"affinage distil {teacher} --recipe {plan.name} --corpus … --out {out}",
            distil_one=partial(distil, corpus=corpus, quiet=quiet),
        )
    given = read_given(teacher, corpus=corpus, recipe=text, init_from=init_from, overrides=None)
    plan, stage, files, stream = given.plan, given.stage, given.files, given.stream
    frozen, tokenizer, student, layers = given.teacher, given.tokenizer, given.student, given.layers
    data = fingerprints(files) if stream is None else stream.fingerprints()
    identity = identity_of(plan, teacher=teacher, init_from=init_from, corpus=in_order(files, data))
    with processes().main_process_first():
        folder = RunFolder.open(Path(out), identity=identity, overwrite=overwrite)
    with folder.preparing():
        shared = None if stream is not None else token_folder(files, data, tokenizer, held_out=stage.held_out)
        rows = corpus_rows(files, tokenizer, stage, folder=shared or folder.partial / "tokens", stream=stream)
        cache = None
        if isinstance(rows.train, PackedRows):
            cache = teacher_cache(stage, rows.train, frozen, folder=folder.partial / "teacher", identity=identity)
    objective = Objective(student, stage.losses, teacher=frozen, cache=cache)
    run = train_stage(
        objective,
        rows,
        stage,
        tokenizer=tokenizer,
        folder=folder,
        label="distillation",
        teacher=frozen,
        quiet=quiet,
    )
    if layers is not None:
        student.config.affinage_layers = list(layers)
    report = Report(
        command="distil",
        models=(
            model_entry(student, name="student", path=out, base=teacher),
            model_entry(frozen, name="teacher", path=teacher, folder=located(teacher)),
        ),
        training=run,
        provenance=provenance(
            command=command or f"affinage distil {teacher} --recipe {plan.name} --corpus … --out {out}",
            seed=stage.training.seed,
            recipe_sha256=plan.sha256,
            data=data,
            seconds=time.perf_counter() - began,
        ),
    )
    if processes().is_main_process:
        folder.finish(
            lambda aside: write_model_folder(
                aside, model=student, tokenizer=tokenizer, recipe=plan, report=report, base=str(teacher)
            )
        )
    return report


@dataclass(frozen=True)
class Given:
    """What a distillation is asked for: read, and found to fit together."""

    plan: Recipe
    files: list[Path | str]
    stream: Stream | None
    teacher: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    student: PreTrainedModel
    layers: tuple[int, ...] | None
    """of the teacher, that the student starts from; None where it starts at random, or from an earlier student"""

    @property
    def stage(self) -> Stage:
        """Its only one."""
        return self.plan.stages[0]


def read_given(
    teacher: str | Path,
    *,
    corpus: Sequence[str | Path],
    recipe: str | Path | Recipe,
    init_from: str | Path | None,
    overrides: Mapping[str, str] | None,
) -> Given:
    """By the recipe's one stage on text. Raises: InputError for whatever cannot be used."""
    plan = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe, overrides)
    plan = plan.with_stages_on("text")
    stage = plan.only_stage("distil")
    losses = build_losses(stage.losses, teacher=True)
    computes_in_bf16(stage.training.precision)
    check_kernels(stage.training.kernels)
    files = corpus_files(corpus)
    stream = as_stream(files, stage)
    check_teacher_cache(stage, losses, streamed=stream is not None)
    frozen, _ = load_masked_lm(teacher)
    tokenizer = load_tokenizer(teacher)
    check_fit(tokenizer, frozen.config, where=teacher)
    check_row_length(stage)
    if stage.training.row_length > max_length(frozen.config):
        raise InputError(
            f"training.row_length {stage.training.row_length} exceeds the {max_length(frozen.config)} tokens that the "
            "teacher takes"
        )
    set_seed(stage.training.seed)
    student, layers = _student(init_from, frozen, tokenizer, plan)
    check_freeze(stage.freeze, student)
    fit_losses(losses, student, frozen)
    return Given(plan, files, stream, frozen, tokenizer, student, layers)


def _student(
    init_from: str | Path | None, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, plan: Recipe
) -> tuple[PreTrainedModel, tuple[int, ...] | None]:
    """The student to train, and the teacher's layers it starts from; None where at random, or from an earlier student.

    Raises: InputError where the spec, or the model to go on from, does not fit the teacher.
    """
    if init_from is None:
        student, layers = make_student(teacher, plan.student)
        if not layers:
            log.info("the student starts at random")
            return student, None
        log.info("the student starts from layers %s of the teacher's %d", list(layers), depth_of(teacher.config))
        return student, layers
    student, _ = load_masked_lm(init_from)
    if load_tokenizer(init_from).get_vocab() != tokenizer.get_vocab():
        raise InputError(f"model '{init_from}' has another vocabulary than the teacher; a student shares the teacher's")
    check_continued(plan.student, student)
    log.info("the student goes on from '%s'", init_from)
    return student, None
