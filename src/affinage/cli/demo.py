"""`affinage demo`: arguments of the workflow of that name."""

from pathlib import Path
from typing import Annotated

import typer

from affinage.cli.console import say, write
from affinage.cli.options import Json, Overwrite, Quiet


def demo(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write; must not exist.")] = Path(
        "affinage-demo"
    ),
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="DIR", help="Your own sets: DIR/sentiment, DIR/ner, DIR/nli, DIR/qa, DIR/corpus."
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            metavar="MODEL",
            help="Model folder or hub name, with its vocabulary head. Default: the shipped one.",
        ),
    ] = None,
    english: Annotated[
        bool, typer.Option("--english", help="English sets, and all-MiniLM-L6-v2 for a teacher, if it is installed.")
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick/--from-layers", help="Go on with the shipped student, or start from the teacher's layers."
        ),
    ] = True,
    minutes: Annotated[float, typer.Option("--minutes", metavar="N", help="About how long all of it may take.")] = 8.0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0)] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The whole job in minutes -> a report to read.

    Distils a student from the teacher, fine-tunes both on sentiment, NER, NLI and question answering, times both, lets
    them say something, and writes report.json, report.md and report.html beside the models. Needs no network: teacher
    and texts come with affinage. An interrupted demo goes on when the same command is given again.

    \b
    affinage demo
    affinage demo --data my-data/ --out mine
    affinage demo --english --out english
    affinage demo --teacher camembert-base --minutes 60 --out camembert
    """
    from affinage.workflows.demo import demo as run

    report = run(
        out=out,
        data=data,
        teacher=teacher,
        english=english,
        quick=quick,
        minutes=minutes,
        seed=seed,
        overwrite=overwrite,
        quiet=quiet,
        command=ctx.obj,
    )
    write(report.to_json() if as_json else report.to_markdown())
    if not quiet:
        say(f"saved in {out}: open {out / 'report.html'}")
