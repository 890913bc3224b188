"""`affinage inspect`: shape, parameters and cost of a model."""

from typing import TYPE_CHECKING, Annotated

import typer

from affinage.cli.console import write, write_table
from affinage.cli.options import Json, Model

if TYPE_CHECKING:
    from affinage.evaluation.footprint import Footprint


def inspect(
    model: Model,
    length: Annotated[
        int, typer.Option("--length", metavar="N", help="Tokens of the text that FLOPs are counted for.")
    ] = 128,
    as_json: Json = False,
) -> None:
    """Layers, widths, parameters, bytes, FLOPs.

    Counted from the model's config; its weights are not read.

    \b
    affinage inspect runs/student
    affinage inspect camembert-base --length 512 --json
    """
    from affinage.workflows.inspect import inspect as run

    found = run(model, length=length)
    if as_json:
        write(found.model_dump_json(indent=1))
    else:
        write_table(("", f">{found.architecture}"), _rows(found))


def _rows(found: "Footprint") -> list[tuple[str, str]]:
    parts = ("embeddings", "encoder", "pooler", "head")
    return [
        ("layers", str(found.layers)),
        ("hidden size", f"{found.hidden_size:,}"),
        ("attention heads", str(found.heads)),
        ("intermediate size", f"{found.intermediate_size:,}"),
        ("vocabulary", f"{found.vocab_size:,}"),
        ("longest row, tokens", f"{found.max_length:,}"),
        ("parameters", f"{found.parameters:,}"),
        *((f"  {part}", f"{getattr(found, part):,}") for part in parts),
        ("weights stored, MB", f"{found.size_bytes / 1e6:,.1f}"),
        ("  as", found.stored_as or "unknown"),
        (f"GFLOP for {found.length} tokens", f"{found.flops / 1e9:,.2f}"),
    ]
