"""`affinage plan`: arguments of the workflow of that name, and how a plan is shown."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affinage.cli.console import write, write_table
from affinage.cli.options import Json, Recipe, Settings, overrides
from affinage.training.plan import UTILISATION, Memory
from affinage.training.quantities import count_of, shown_bytes, shown_flops, shown_hours

if TYPE_CHECKING:
    from affinage.workflows.plan import Plan

MEMORY = ("weights", "gradients", "optimizer", "teacher", "copies", "activations", "logits")


def plan(
    tokens: Annotated[
        str, typer.Option("--tokens", metavar="N", help="Tokens to train on, all passes together, as 500M or 10B.")
    ],
    teacher: Annotated[
        str | None, typer.Argument(metavar="TEACHER", help="Model folder, hub name, or one of the known shapes.")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option("--shape", metavar="SHAPE", help="camembert-base, or layers=12,hidden=768,vocab=32005."),
    ] = None,
    recipe: Recipe = "distilcamembert",
    hardware: Annotated[
        list[str] | None,
        typer.Option("--hardware", metavar="HW", help="a100, 8xh100, or flops=…,memory=…. Repeatable."),
    ] = None,
    utilisation: Annotated[
        float, typer.Option("--utilisation", metavar="SHARE", help="Share of the peak that is reached.")
    ] = UTILISATION,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """A recipe -> operations, hours, memory, on paper.

    Nothing is computed and nothing is downloaded for a known shape. What a run costs on this machine, measured:
    affinage distil … --dry-run.

    \b
    affinage plan camembert-base --tokens 10B
    affinage plan --shape layers=12,hidden=768,vocab=32005 --tokens 10B --hardware 8xa100
    affinage plan runs/teacher --tokens 500M --hardware cpu-2-cores --set student.num_hidden_layers=3
    affinage plan --recipe mini-camembert --tokens 30M --hardware flops=400e9,memory=16GB
    """
    count = count_of(tokens, name="--tokens")
    from affinage.workflows.plan import HARDWARE
    from affinage.workflows.plan import plan as run

    found = run(
        teacher,
        tokens=count,
        shape_of_model=shape,
        recipe=recipe,
        hardware=hardware or HARDWARE,
        utilisation=utilisation,
        overrides=overrides(settings, max_steps=None, seed=None),
    )
    if as_json:
        write(json.dumps(as_data(found), indent=1, ensure_ascii=False))
    else:
        _show(found)


def as_data(plan: "Plan") -> dict[str, Any]:
    """The plan as JSON holds it: its fields, and what follows from them."""
    data = asdict(plan)
    for entry, estimate in zip(data["estimates"], plan.estimates, strict=True):
        entry["flops"], entry["fits"] = estimate.flops, estimate.fits
        entry["memory"]["total"] = estimate.memory.total
        entry["flops_per_token"]["total"] = estimate.flops_per_token.total
    for key in ("student", "teacher"):
        if data[key] is not None:
            data[key]["parameters"] = getattr(plan, key).parameters
    return data


def _show(plan: "Plan") -> None:
    first = plan.estimates[0]
    rows = [("recipe", plan.recipe), ("student, parameters", f"{plan.student.parameters:,}")]
    if plan.teacher is not None:
        rows.append(("teacher, parameters", f"{plan.teacher.parameters:,}"))
    flops = first.flops_per_token
    rows += [
        ("tokens", f"{plan.tokens:,.0f}"),
        ("a token of the student, forward and backward", shown_flops(flops.student)),
        ("a token of the teacher, forward", shown_flops(flops.teacher)),
        (f"a token of the vocabulary heads, at {100 * plan.head_share:g} % of tokens", shown_flops(flops.head)),
        ("a token in all", shown_flops(flops.total)),
        ("the run", shown_flops(first.flops)),
    ]
    write_table(("plan", ">"), rows)
    write("")
    speed = ("hardware", "in", ">peak TFLOP/s", ">used %", ">tokens/s", ">steps", ">time")
    times: list[tuple[str, ...]] = [
        (
            e.machine.name,
            e.precision,
            f"{e.machine.peak(e.precision) / 1e12:,.2f}",
            f"{100 * e.utilisation:g}",
            f"{e.tokens_per_second:,.0f}",
            f"{e.steps:,}",
            shown_hours(e.hours),
        )
        for e in plan.estimates
    ]
    write_table(speed, times)
    write("")
    parts = ("memory of a device", *(f">{name}" for name in MEMORY), ">in all", ">of", "")
    memory: list[tuple[str, ...]] = [
        (
            e.machine.name,
            *memory_cells(e.memory),
            shown_bytes(e.memory.total),
            shown_bytes(e.machine.memory_bytes),
            "" if e.fits else "too little",
        )
        for e in plan.estimates
    ]
    write_table(parts, memory)


def memory_cells(memory: Memory) -> list[str]:
    """Its parts in words, in the order of `MEMORY`."""
    return [shown_bytes(getattr(memory, name)) for name in MEMORY]
