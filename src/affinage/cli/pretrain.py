"""`affinage pretrain`: arguments of the workflow of that name."""

from typing import Annotated, Any

import typer

from affinage.cli.options import DryRun, Json, MaxSteps, Out, Overwrite, Quiet, Recipe, Seed, Settings, overrides
from affinage.cli.results import show_report


def pretrain(
    ctx: typer.Context,
    corpus: Annotated[
        list[str], typer.Argument(metavar="CORPUS", help="Text (.txt, .gz), Parquet, folders, URLs, hub data sets.")
    ],
    out: Out,
    recipe: Recipe = "mini-camembert",
    init_from: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Start from a model folder or hub name.")
    ] = None,
    settings: Settings = None,
    max_steps: MaxSteps = None,
    seed: Seed = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Raw text -> a vocabulary and a language model.

    The model is a masked language model in stock classes (CamemBERT, RoBERTa, BERT, DistilBERT), to be distilled or
    fine-tuned. With --from it starts from another model, its vocabulary kept or replaced.

    An interrupted run resumes when the same command is given again.

    \b
    affinage pretrain corpus/ --out runs/teacher
    affinage pretrain corpus/*.txt.gz --from sentence-transformers/all-MiniLM-L6-v2 --out runs/teacher
    affinage pretrain corpus/ --set student.num_hidden_layers=4 --max-steps 500 --out runs/small
    affinage pretrain corpus/ --out runs/teacher --dry-run
    """
    asked: dict[str, Any] = {
        "out": out,
        "recipe": recipe,
        "init_from": init_from,
        "overrides": overrides(settings, max_steps=max_steps, seed=seed),
        "overwrite": overwrite,
        "quiet": quiet,
    }
    if dry_run:
        from affinage.cli.dry_run import show_dry_run
        from affinage.workflows.dry_run import pretrain_dry_run

        show_dry_run(pretrain_dry_run(corpus, **asked), as_json=as_json)
        return
    from affinage.workflows.pretrain import pretrain as run

    report = run(corpus, **asked, command=ctx.obj)
    show_report(report, as_json=as_json, out=out, quiet=quiet)
