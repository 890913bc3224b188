"""`affinage finetune`: arguments of the workflow of that name."""

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


def finetune(
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
    """Model and labelled data -> a task model.

    The checkpoint with the best score on the valid part is kept.
    Files: JSONL, CSV, TSV, Parquet, CoNLL, SQuAD JSON, plain or .gz.

    An interrupted run resumes when the same command is given again.

    \b
    affinage finetune runs/student --task sentiment --data reviews/ --out runs/sentiment
    affinage finetune runs/student --task ner --data train.conll --out runs/ner
    affinage finetune runs/student --task sentiment --data r.csv --column text=review --column label=stars --out runs/s
    """
    from affinage.workflows.finetune import finetune as run

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
