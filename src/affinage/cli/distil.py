"""`affinage distil`: arguments of the workflows `distil` and `distil_task`."""

from typing import Annotated, Any

import typer

from affinage.cli.options import (
    Columns,
    DryRun,
    Json,
    MaxSteps,
    Out,
    Overwrite,
    Quiet,
    Seed,
    Settings,
    columns_of,
    overrides,
)
from affinage.cli.results import show_report
from affinage.errors import InputError


def distil(
    ctx: typer.Context,
    teacher: Annotated[
        str,
        typer.Argument(
            metavar="TEACHER", help="Model folder or hub name: with its vocabulary head, or fine-tuned for the task."
        ),
    ],
    out: Out,
    corpus: Annotated[
        list[str] | None,
        typer.Option("--corpus", metavar="CORPUS", help="Text (.txt, .gz), Parquet, folders, URLs, hub data sets."),
    ] = None,
    more_corpus: Annotated[
        list[str] | None, typer.Argument(metavar="MORE", help="More text: what a shell makes of --corpus *.txt.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="Distil for a task. See: affinage list tasks.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="PATH|NAME", help="The task's rows: as for affinage finetune.")
    ] = None,
    columns: Columns = None,
    unlabelled: Annotated[
        str | None,
        typer.Option("--unlabelled", metavar="FILE", help="More texts for the task, which the teacher labels."),
    ] = None,
    more_teachers: Annotated[
        list[str] | None,
        typer.Option("--teacher", metavar="MODEL", help="A further tuned teacher; answers are averaged. Repeatable."),
    ] = None,
    teacher_recipe: Annotated[
        str | None,
        typer.Option(
            "--teacher-recipe",
            metavar="NAME|FILE",
            help="How a teacher that is not tuned for the task is tuned first. Default: finetune.",
        ),
    ] = None,
    teacher_cache: Annotated[
        str | None,
        typer.Option("--teacher-cache", metavar="DIR", help="Keep what the teacher says of each row, for later runs."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME|FILE",
            help="See: affinage recipe list. Default: distilcamembert; for a task tinybert-task, or task where it does "
            "not fit.",
            show_default=False,
        ),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option("--from", metavar="MODEL", help="Go on with this student instead of starting from the layers."),
    ] = None,
    settings: Settings = None,
    max_steps: MaxSteps = None,
    seed: Seed = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Teacher and raw text -> a student half as deep; or teacher and labelled data -> one tuned for the task.

    The student starts from every other layer of the teacher and is trained to predict as it does.
    For a task, a teacher that is not fine-tuned for it is tuned first, and the report says what the student keeps.

    An interrupted run resumes when the same command is given again.

    \b
    affinage distil runs/teacher --corpus corpus/ --out runs/student
    affinage distil camembert-base --corpus corpus/*.txt.gz --out runs/student
    affinage distil runs/teacher --corpus corpus/ --set student.layers=[0,2,5] --max-steps 500 --out runs/three
    affinage distil runs/teacher --corpus corpus/ --out runs/student --dry-run
    affinage distil runs/teacher --task sentiment --data reviews/ --out runs/reviews
    affinage distil runs/tuned --task sentiment --data reviews/ --unlabelled more.txt --from runs/student --out runs/r
    """
    # `--corpus corpus/*.txt` reaches us as one value and further arguments.
    files = [*(corpus or ()), *(more_corpus or ())]
    asked: dict[str, Any] = {
        "out": out,
        **({} if recipe is None else {"recipe": recipe}),
        "init_from": init_from,
        "overrides": overrides(settings, max_steps=max_steps, seed=seed),
        "overwrite": overwrite,
        "quiet": quiet,
    }
    if task is not None or data is not None:
        _refuse_half(task, data, dry_run=dry_run)
        from affinage.workflows.distil_task import distil_task

        report = distil_task(
            teacher,
            task=str(task),
            data=str(data),
            corpus=files,
            columns=columns_of(columns),
            unlabelled=unlabelled,
            more_teachers=more_teachers or (),
            teacher_recipe=teacher_recipe or "finetune",
            teacher_cache=teacher_cache,
            **asked,
            command=ctx.obj,
        )
        show_report(report, as_json=as_json, out=out, quiet=quiet)
        return
    of_tasks = {
        "--column": columns,
        "--unlabelled": unlabelled,
        "--teacher": more_teachers,
        "--teacher-recipe": teacher_recipe,
        "--teacher-cache": teacher_cache,
    }
    for option, given in of_tasks.items():
        if given:
            raise InputError(f"{option} is for a task: name it with --task and --data, or leave {option} out")
    if not corpus:
        raise InputError(
            "distil needs text, or the rows of a task: name it with --corpus, for example --corpus corpus/, or with "
            "--task and --data, for example --task sentiment --data reviews/"
        )
    if dry_run:
        from affinage.cli.dry_run import show_dry_run
        from affinage.workflows.dry_run import distil_dry_run

        show_dry_run(distil_dry_run(teacher, corpus=files, **asked), as_json=as_json)
        return
    from affinage.workflows.distil import distil as run

    report = run(teacher, corpus=files, **asked, command=ctx.obj)
    show_report(report, as_json=as_json, out=out, quiet=quiet)


def _refuse_half(task: str | None, data: str | None, *, dry_run: bool) -> None:
    """Raises: InputError where a task is named without data, data without a task, or a dry run is asked for."""
    if data is None:
        raise InputError(f"--task {task}: name its rows with --data, for example --data reviews/")
    if task is None:
        raise InputError(f"--data {data}: say what it is with --task; see: affinage list tasks")
    if dry_run:
        raise InputError("--dry-run is for distillation on text; with --task try --max-steps 10 in its place")
