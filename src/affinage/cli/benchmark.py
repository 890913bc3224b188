"""`affinage benchmark`: arguments of the workflow of that name."""

from pathlib import Path
from typing import Annotated

import typer

from affinage.cli.console import write, write_table
from affinage.cli.options import Json, Overwrite, Quiet
from affinage.cli.results import show_report
from affinage.errors import InputError


def benchmark(
    ctx: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Model folders or hub names of any kind.", show_default=False),
    ],
    lengths: Annotated[
        str, typer.Option("--lengths", metavar="N,N", help="Tokens of the texts timed one at a time.")
    ] = "16,64,128,384",
    batch_size: Annotated[
        int,
        typer.Option("--batch-size", "--batch", metavar="N", min=1, help="Texts of mixed lengths computed at once."),
    ] = 16,
    engines: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="NAME,NAME",
            help="torch, onnx, onnx-int8, openvino, openvino-bf16: every model in each.",
        ),
    ] = "torch",
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", min=1, help="Default: the cores this process may use.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="Rounds that are timed.")] = 30,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", help="No further round begins after S; 3 are made anyway.")
    ] = 10.0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for report.json and report.md; must not exist."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Models -> latency, throughput, memory, speed-up.

    The models take turns, so that what slows the machine slows them alike; ratios are to the first one.
    Timed: the forward pass on the CPU, on random tokens. Not timed: turning text into tokens.

    \b
    affinage benchmark runs/teacher-sentiment runs/student-sentiment
    affinage benchmark runs/a runs/b --threads 1 --lengths 32,256 --out runs/speed
    affinage benchmark runs/sentiment --engine torch,onnx,onnx-int8 --json
    """
    sizes = _lengths(lengths)
    from affinage.report.speed import speed_tables
    from affinage.workflows.benchmark import benchmark as run

    report = run(
        models,
        engines=[name.strip() for name in engines.split(",") if name.strip()],
        lengths=sizes,
        batch_size=batch_size,
        threads=threads,
        repeats=repeats,
        seconds=seconds,
        out=out,
        overwrite=overwrite,
        quiet=quiet,
        command=ctx.obj,
    )
    show_report(report, as_json=as_json, out=out, quiet=quiet)
    for columns, rows in [] if as_json else speed_tables(report):
        write("")
        write_table(columns, list(rows))


def _lengths(given: str) -> list[int]:
    """`16,64` as numbers. Raises: InputError where they are none."""
    try:
        return [int(length) for length in given.split(",")]
    except ValueError:
        raise InputError(f"--lengths '{given}': expected whole numbers with commas between them, as 16,64") from None
