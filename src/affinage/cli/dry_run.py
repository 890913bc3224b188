"""How a dry run is shown to people, or as JSON."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from affinage.cli.console import write, write_table
from affinage.cli.plan import MEMORY, memory_cells
from affinage.training.quantities import shown_bytes, shown_flops, shown_hours

if TYPE_CHECKING:
    from affinage.workflows.trial_run import DryRun


def show_dry_run(found: "DryRun", *, as_json: bool) -> None:
    """On stdout: the model, the text, the speed, and what the whole run would take."""
    if as_json:
        data = asdict(found)
        data["planned_memory"]["total"] = found.planned_memory.total
        write(json.dumps(data, indent=1, ensure_ascii=False))
        return
    write_table((f"dry run: {found.command} by recipe {found.recipe}", ">"), _rows(found))
    write("")
    planned = zip(MEMORY, memory_cells(found.planned_memory), strict=True)
    total = ("in all, without the framework itself", shown_bytes(found.planned_memory.total))
    measured = ("measured: greatest of the first process in the trial", shown_bytes(found.measured_memory_bytes))
    write_table(("memory of a device, by arithmetic", ">"), [*planned, total, measured])


def _rows(found: "DryRun") -> list[tuple[str, str]]:
    model = [("student, parameters", f"{found.student_parameters:,}")]
    if found.teacher_parameters is not None:
        model.append(("teacher, parameters", f"{found.teacher_parameters:,}"))
    machine = found.device if found.processes == 1 else f"{found.processes} processes, {found.device}"
    return [
        *model,
        ("on", machine),
        ("computes in", found.precision),
        (_corpus_label(found), "unknown" if found.corpus_tokens is None else f"{found.corpus_tokens:,}"),
        ("packed rows, % full", f"{100 * found.row_fill:.0f}"),
        ("optimizer steps", "unknown" if found.steps is None else f"{found.steps:,}"),
        ("real tokens of a step", f"{found.tokens_per_step:,.0f}"),
        (f"seconds of a step, median of {found.steps_timed}", f"{found.step_seconds:.3g}"),
        ("% of it for data, masks and logs", _percent(found.overhead_share)),
        ("tokens/s", f"{found.tokens_per_second:,.0f}"),
        ("arithmetic of a token", shown_flops(found.flops_per_token)),
        (f"% of {shown_flops(found.peak_flops)}/s used ({found.peak_source})", f"{100 * found.utilisation:.0f}"),
        ("tokenising and packing", _time(found.preparation_seconds)),
        ("training, without held-out scores and checkpoints", _time(found.training_seconds)),
    ]


def _corpus_label(found: "DryRun") -> str:
    if found.corpus_tokens is None:
        return "corpus, tokens to train on: it is streamed"
    if not found.corpus_estimated:
        return "corpus, tokens to train on, counted"
    return f"corpus, tokens to train on, estimated from {_percent(found.corpus_share)} % of its bytes"


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f}"


def _time(seconds: float | None) -> str:
    return "unknown" if seconds is None else shown_hours(seconds / 3600)
