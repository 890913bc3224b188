"""`affinage unanswerable`: arguments of the workflow of that name."""

import json
from typing import Annotated

import typer

from affinage.cli.console import say, write
from affinage.cli.options import Columns, Json, Out, Overwrite, Quiet, columns_of


def unanswerable(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Folder, file or hub name of answerable questions.")],
    out: Out,
    dev: Annotated[
        str | None, typer.Option("--dev", metavar="FILE", help="SQuAD 2.0's dev part, copied beside the train part.")
    ] = None,
    share: Annotated[
        float, typer.Option("--share", metavar="X", help="Of the questions written, how many have no answer.")
    ] = 1 / 3,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0)] = 0,
    columns: Columns = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answerable questions -> a training set for squad2.

    Moves some of the questions to a paragraph of the same article that does not hold their answer.

    \b
    affinage unanswerable squad/v1.1 --dev squad/v2.0/dev.jsonl.gz --out squad2
    affinage finetune MODEL --task squad2 --data squad2 --out runs/squad2
    """
    from affinage.workflows.unanswerable import unanswerable as run

    made = run(data, out=out, dev=dev, share=share, seed=seed, columns=columns_of(columns), overwrite=overwrite)
    if as_json:
        write(json.dumps(made))
    else:
        write(f"{made['answerable']:,} questions with an answer, {made['unanswerable']:,} without")
    if not quiet:
        say(f"saved in {out}")
