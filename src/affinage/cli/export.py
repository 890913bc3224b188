"""`affinage export`: arguments of the workflow of that name."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from affinage.cli.console import say, write, write_table
from affinage.cli.options import Columns, Json, Model, Out, Overwrite, Quiet, columns_of

if TYPE_CHECKING:
    from affinage.workflows.export import Exported


def export(
    model: Model,
    out: Out,
    form: Annotated[
        str, typer.Option("--format", metavar="NAME", help="For ONNX Runtime or OpenVINO: onnx, openvino.")
    ] = "onnx",
    int8: Annotated[
        str, typer.Option("--int8", metavar="KIND", help="Weights as 8-bit integers: none, dynamic, static.")
    ] = "none",
    target: Annotated[
        str, typer.Option("--target", metavar="CPU", help="Of --int8: x86-vnni, x86 (without VNNI), arm64.")
    ] = "x86-vnni",
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="Default: found in the model's config.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="PATH|NAME", help="Texts to compare on. Default: affinage's own.")
    ] = None,
    columns: Columns = None,
    least_agreement: Annotated[
        float, typer.Option("--least-agreement", metavar="P", min=0, max=1, help="Of --int8: share of equal answers.")
    ] = 0.95,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Model -> a folder for ONNX Runtime or OpenVINO, without torch.

    The folder is kept only if it answers as the model does.

    \b
    affinage export runs/sentiment --out sentiment-onnx
    affinage export runs/sentiment --int8 dynamic --out sentiment-int8
    affinage predict sentiment-int8 "Un film magnifique."
    """
    from affinage.workflows.export import export as run

    made = run(
        model,
        out=out,
        form=form,  # type: ignore[arg-type]
        int8=int8,  # type: ignore[arg-type]
        target=target,  # type: ignore[arg-type]
        task=task,
        data=data,
        columns=columns_of(columns),
        least_agreement=least_agreement,
        overwrite=overwrite,
    )
    if as_json:
        write(json.dumps(asdict(made), indent=1))
    else:
        write_table(("export", f">{made.kind}"), _rows(made))
    if not quiet:
        say(f"saved in {out}")


def _rows(made: "Exported") -> list[tuple[str, str]]:
    return [
        ("size", f"{made.size_bytes / 2**20:,.1f} MiB"),
        ("int8", made.int8),
        ("operators", f"{made.operators:,}"),
        ("compared rows", f"{made.rows:,}"),
        ("equal answers", f"{made.agreement:.2%}"),
        ("largest difference of logits", f"{made.largest_difference:.2g}"),
    ]
