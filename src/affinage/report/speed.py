"""Tables of speed and cost: column names and cells, and a table's Markdown.

A column whose name begins with `>` is aligned to the right.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from affinage.report.report import Latency, Report, Speedup

Cells = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""column names, rows"""


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; no cell can break it."""
    names = [name.removeprefix(">") for name in header]
    cells = [[" ".join(cell.replace("|", r"\|").split()) for cell in row] for row in (names, *rows)]
    cells.insert(1, ["---:" if name.startswith(">") else "---" for name in header])
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def speed_tables(report: "Report") -> list[Cells]:
    """Latency with its speed-ups, and costs: those that the report has."""
    return [table for table in (_latency(report), _costs(report)) if table[1]]


def _latency(report: "Report") -> Cells:
    times = (
        "model",
        "engine",
        ">threads",
        ">batch",
        ">tokens",
        ">p50 ms",
        ">p95 ms",
        ">p99 ms",
        ">tokens/s",
        ">batches timed",
    )
    if not report.speedups:
        return times, [_times(row) for row in report.latency]
    found = {_cell(speedup): speedup for speedup in report.speedups}
    references = ", ".join(dict.fromkeys(_reference(speedup) for speedup in report.speedups))
    rows = [(*_times(row), _ratio(found.get(_cell(row)))) for row in report.latency]
    return (*times, f">times as fast as {references}"), rows


def _reference(speedup: "Speedup") -> str:
    """Its name, and its engine where that is not the model's."""
    engine = speedup.reference_engine
    return speedup.reference if engine is None else f"{speedup.reference} ({engine})"


def _costs(report: "Report") -> Cells:
    rows: list[tuple[str, ...]] = [
        (
            cost.model,
            cost.engine,
            f"{cost.load_seconds:.2f}",
            f"{cost.peak_memory_bytes / 1e6:,.0f}",
            "not readable" if cost.joules_per_1000_texts is None else f"{cost.joules_per_1000_texts:,.1f}",
        )
        for cost in report.costs
    ]
    return ("model", "engine", ">load s", ">peak memory MB", ">J per 1,000 texts"), rows


def _cell(row: "Latency | Speedup") -> tuple[str, str, int, int | None]:
    return row.model, row.engine, row.batch, row.length


def _times(row: "Latency") -> tuple[str, ...]:
    return (
        row.model,
        row.engine,
        str(row.threads),
        str(row.batch),
        "mixed" if row.length is None else str(row.length),
        f"{row.p50_ms:.2f}",
        f"{row.p95_ms:.2f}",
        "" if row.p99_ms is None else f"{row.p99_ms:.2f}",
        f"{row.tokens_per_second:,.0f}",
        f"{row.runs:,}",
    )


def _ratio(speedup: "Speedup | None") -> str:
    """With its interval; nothing for the reference itself."""
    return "" if speedup is None else f"{speedup.ratio:.2f} ({speedup.low:.2f} to {speedup.high:.2f})"
