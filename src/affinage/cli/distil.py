"""`affinage distil`: arguments of the workflow of that name."""

from typing import Annotated, Any

import typer

from affinage.cli.options import DryRun, Json, MaxSteps, Out, Overwrite, Quiet, Recipe, Seed, Settings, overrides
from affinage.cli.results import show_report
from affinage.errors import InputError


def distil(
    ctx: typer.Context,
    teacher: Annotated[
        str, typer.Argument(metavar="TEACHER", help="Model folder or hub name, with its vocabulary head.")
    ],
    out: Out,
    corpus: Annotated[
        list[str] | None,
        typer.Option("--corpus", metavar="CORPUS", help="Text (.txt, .gz), Parquet, folders, URLs, hub data sets."),
    ] = None,
    more_corpus: Annotated[
        list[str] | None, typer.Argument(metavar="MORE", help="More text: what a shell makes of --corpus *.txt.")
    ] = None,
    recipe: Recipe = "distilcamembert",
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
    """Teacher and raw text -> a student half as deep.

    The student starts from every other layer of the teacher and is trained to predict as it does.

    An interrupted run resumes when the same command is given again.

    \b
    affinage distil runs/teacher --corpus corpus/ --out runs/student
    affinage distil camembert-base --corpus corpus/*.txt.gz --out runs/student
    affinage distil runs/teacher --corpus corpus/ --set student.layers=[0,2,5] --max-steps 500 --out runs/three
    affinage distil runs/teacher --corpus corpus/ --out runs/student --dry-run
    """
    # `--corpus corpus/*.txt` reaches us as one value and further arguments.
    files = [*(corpus or ()), *(more_corpus or ())]
    if not corpus:
        raise InputError("distil needs text: name it with --corpus, for example --corpus corpus/")
    asked: dict[str, Any] = {
        "corpus": files,
        "out": out,
        "recipe": recipe,
        "init_from": init_from,
        "overrides": overrides(settings, max_steps=max_steps, seed=seed),
        "overwrite": overwrite,
        "quiet": quiet,
    }
    if dry_run:
        from affinage.cli.dry_run import show_dry_run
        from affinage.workflows.dry_run import distil_dry_run

        show_dry_run(distil_dry_run(teacher, **asked), as_json=as_json)
        return
    from affinage.workflows.distil import distil as run

    report = run(teacher, **asked, command=ctx.obj)
    show_report(report, as_json=as_json, out=out, quiet=quiet)
