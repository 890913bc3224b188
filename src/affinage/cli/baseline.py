"""`affinage baseline`: arguments of the workflow of that name."""

import typer

from affinage.cli.options import (
    Columns,
    Data,
    Json,
    MaxSteps,
    Model,
    Out,
    Overwrite,
    Quiet,
    Recipe,
    Seed,
    Settings,
    Task,
    columns_of,
    overrides,
)
from affinage.cli.results import show_report


def baseline(
    ctx: typer.Context,
    model: Model,
    task: Task,
    data: Data,
    out: Out,
    columns: Columns = None,
    recipe: Recipe = "finetune",
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
    show_report(report, as_json=as_json, out=out, quiet=quiet)
