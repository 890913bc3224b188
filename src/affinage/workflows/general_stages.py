"""General distillation in several stages: each goes on with the student of the one before, or is taught by it."""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, set_seed

from affinage.data.corpus import corpus_files, fingerprints, in_order
from affinage.data.streams import as_stream
from affinage.distillation.kernels import check_kernels
from affinage.distillation.objective import build_losses, fit_losses
from affinage.distillation.student import make_student
from affinage.models.checkpoint import load_masked_lm, load_tokenizer, weights_fingerprint
from affinage.models.freezing import check_freeze
from affinage.recipe import Recipe, Stage
from affinage.report.provenance import provenance
from affinage.report.report import Report
from affinage.training.arguments import computes_in_bf16
from affinage.training.model_folder import write_model_folder
from affinage.training.processes import agreed, processes
from affinage.training.run_folder import RunFolder
from affinage.workflows.joined_training import joined

log = logging.getLogger(__name__)


def distil_in_turn(
    teacher: str | Path,
    plan: Recipe,
    *,
    corpus: Sequence[str | Path],
    out: str | Path,
    init_from: str | Path | None,
    overwrite: bool,
    command: str,
    distil_one: Callable[..., Report],
) -> Report:
    """Run the stages of `plan` with `distil_one`, a folder each within that of the run; the last student is `out`.

    After a stage with an assistant, that is the teacher; after any other, its student goes on.

    Raises: InputError before the first stage for what one of them cannot use.
    """
    began = time.perf_counter()
    check_in_turn(teacher, plan, init_from)
    files = corpus_files(corpus)
    stream = as_stream(files, plan.stages[0])
    data = fingerprints(files) if stream is None else stream.fingerprints()
    identity = identity_of(plan, teacher=teacher, init_from=init_from, corpus=in_order(files, data))
    with processes().main_process_first():
        folder = RunFolder.open(Path(out), identity=identity, overwrite=overwrite)
    reports: list[tuple[Stage, Report]] = []
    teaching, start = teacher, init_from
    for number, stage in enumerate(plan.stages, start=1):
        place = _place(folder, number)
        log.info("stage %d of %d: %s", number, len(plan.stages), stage.name)
        if not agreed((place / "report.json").is_file):
            distil_one(teaching, out=place, recipe=_alone(plan, stage), init_from=None if stage.assistant else start)
            processes().wait_for_everyone()  # until the first has written it
        reports.append((stage, Report.from_json((place / "report.json").read_text(encoding="utf-8"))))
        teaching, start = (place, None) if stage.assistant is not None else (teaching, place)
    last = _place(folder, len(plan.stages))
    student, tokenizer = load_masked_lm(last)[0], load_tokenizer(last)
    entries = [
        made.models[0].model_copy(update={"name": stage.name, "path": f"{out}: stage {number}"})
        for number, (stage, made) in enumerate(reports[:-1], start=1)
        if stage.assistant is not None
    ]
    report = Report(
        command="distil",
        models=(
            reports[-1][1].models[0].model_copy(update={"path": str(out), "base": str(teacher)}),
            *entries,
            reports[0][1].models[1],
        ),
        training=joined([(stage.name, made.training) for stage, made in reports if made.training is not None]),
        provenance=provenance(
            command=command,
            seed=plan.stages[-1].training.seed,
            recipe_sha256=plan.sha256,
            data=data,
            seconds=time.perf_counter() - began,
        ),
    )

    def write(aside: Path) -> None:
        write_model_folder(aside, model=student, tokenizer=tokenizer, recipe=plan, report=report, base=str(teacher))
        for number in range(1, len(plan.stages) + 1):
            shutil.copytree(_place(folder, number) / "runs", aside / "runs" / f"stage-{number}")

    if processes().is_main_process:
        folder.finish(write)
    return report


def identity_of(
    plan: Recipe, *, teacher: str | Path, init_from: str | Path | None, corpus: Mapping[str, Any]
) -> dict[str, Any]:
    """What tells a distillation from every other: an interrupted one is taken up by the same alone.

    `corpus`: of `data.corpus.in_order`.
    """
    return {
        "verb": "distil",
        "recipe": plan.sha256,
        "teacher": str(teacher),
        "teacher_weights": weights_fingerprint(teacher),
        "from": None if init_from is None else weights_fingerprint(init_from),
        "corpus": corpus,
    }


def check_in_turn(teacher: str | Path, plan: Recipe, init_from: str | Path | None = None) -> PreTrainedModel:
    """The student that the stages would make, untrained. Raises: InputError where one cannot be made, or taught."""
    teaching, _ = load_masked_lm(teacher)
    student = None if init_from is None else load_masked_lm(init_from)[0]
    for stage in plan.stages:
        losses = build_losses(stage.losses, teacher=True)
        computes_in_bf16(stage.training.precision)
        check_kernels(stage.training.kernels)
        set_seed(stage.training.seed)
        if student is None or stage.assistant is not None:
            student, _ = make_student(teaching, stage.assistant or plan.student)
        check_freeze(stage.freeze, student)
        fit_losses(losses, student, teaching)
        if stage.assistant is not None:
            teaching, student = student, None
    return student if student is not None else teaching


def _alone(plan: Recipe, stage: Stage) -> Recipe:
    """The recipe of one stage, whose student is the assistant where it has one."""
    shape = plan.student if stage.assistant is None else stage.assistant
    alone = stage.model_copy(update={"assistant": None})
    return plan.model_copy(update={"stages": (alone,), "student": shape, "name": f"{plan.name}: {stage.name}"})


def _place(folder: RunFolder, number: int) -> Path:
    return folder.partial / f"stage-{number}"
