"""`affinage evaluate`: arguments of the workflow of that name."""

from typing import Annotated

import typer

from affinage.cli.options import Columns, Data, Json, Model, Quiet, columns_of
from affinage.cli.results import show_report


def evaluate(
    ctx: typer.Context,
    model: Model,
    data: Data,
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="Default: the one noted in the model's config.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="PART", help="Part of a folder or hub data set. Default: test.")
    ] = None,
    columns: Columns = None,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Rows computed at once.")] = 32,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Task model and labelled data -> scores, intervals.

    Intervals are 95 %, by bootstrap over examples; the baseline always answers the commonest label.

    \b
    affinage evaluate runs/sentiment --data reviews/
    affinage evaluate runs/ner --task ner --data test.conll --json
    affinage evaluate runs/sentiment --data r.csv --column text=review --column label=stars
    """
    from affinage.workflows.evaluate import evaluate as run

    report = run(
        model,
        task=task,
        data=data,
        split=split,
        columns=columns_of(columns),
        batch_size=batch_size,
        command=ctx.obj,
    )
    show_report(report, as_json=as_json)
