"""`affinage report`: arguments of the workflow of that name."""

from pathlib import Path
from typing import Annotated

import typer

from affinage.cli.console import say, write, write_table
from affinage.cli.options import Json, Out, Overwrite, Quiet


def report(
    ctx: typer.Context,
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR", help="What other verbs wrote; searched two levels deep.")
    ],
    out: Out,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="NAME", help="Model the others are compared with. Default: the teacher."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Runs -> structure, speed, scores, what was kept.

    Reads what pretrain, distil, finetune, baseline and benchmark wrote, and writes report.json, report.md and
    report.html. Several seeds of one model and task are several folders. Differences come with 95 % intervals over
    seeds and examples; what they cannot tell is said.

    \b
    affinage report runs/* --out report
    affinage report runs/teacher* runs/student* --reference teacher --out report
    """
    from affinage.report.sentences import facts_of
    from affinage.report.tables import score_table, structure_table
    from affinage.workflows.report import make_report

    made = make_report(folders, out=out, reference=reference, overwrite=overwrite, command=ctx.obj)
    if as_json:
        write(made.to_json())
    else:
        for table in (structure_table(made), score_table(made)):
            if table.rows:
                write_table(table.columns, list(table.rows), title=table.title)
                write("")
        write("\n".join(facts_of(made)))
    if not quiet:
        say(f"saved in {out}; open {out / 'report.html'}")
