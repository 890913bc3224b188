"""`affinage baseline`: arguments of the workflow of that name."""

from typing import TYPE_CHECKING, Annotated

import typer

from affinage.cli.console import say, write, write_table
from affinage.cli.options import (
    Columns,
    Json,
    MaxSteps,
    Model,
    Out,
    Overwrite,
    Quiet,
    Seed,
    Settings,
    columns_of,
    overrides,
)

if TYPE_CHECKING:
    from affinage.report.report import Report


def baseline(
    ctx: typer.Context,
    model: Model,
    task: Annotated[str, typer.Option("--task", metavar="TASK", help="See: affinage list tasks.")],
    data: Annotated[
        str,
        typer.Option("--data", metavar="PATH|NAME", help="Folder with train.*, valid.*, test.*; one file; a hub name."),
    ],
    out: Out,
    columns: Columns = None,
    recipe: Annotated[
        str, typer.Option("--recipe", metavar="NAME|FILE", help="See: affinage recipe list.")
    ] = "finetune",
    settings: Settings = None,
    max_steps: MaxSteps = None,
    seed: Seed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Model and labelled data -> the score without an encoder.

    The higher of two: always the commonest label, and the same head on frozen embeddings.
    A model's score says something by how far it lies above.

    An interrupted run resumes when the same command is given again.

    \b
    affinage baseline runs/teacher --task sentiment --data reviews/ --out runs/sentiment-baseline
    affinage baseline runs/teacher --task ner --data train.conll --out runs/ner-baseline --json
    """
    from affinage.workflows.baseline import baseline as run

    report = run(
        model,
        task=task,
        data=data,
        out=out,
        recipe=recipe,
        overrides=overrides(settings, max_steps=max_steps, seed=seed),
        columns=columns_of(columns),
        overwrite=overwrite,
        quiet=quiet,
        command=ctx.obj,
    )
    if as_json:
        write(report.to_json())
    else:
        _show(report)
    if not quiet:
        say(f"saved in {out}")


def _show(report: "Report") -> None:
    rows = [
        (
            score.metric,
            score.model,
            f"{100 * score.value:.1f}",
            "" if score.low is None or score.high is None else f"{100 * score.low:.1f} to {100 * score.high:.1f}",
            score.split or "",
            f"{score.n:,}",
        )
        for score in sorted(report.scores, key=lambda score: [s.metric for s in report.scores].index(score.metric))
    ]
    write_table(("metric", "baseline", ">score %", ">95 % interval", "part", ">n"), rows)
