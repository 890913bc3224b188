"""The frontier of a report: its variants as points and as a table that can be sorted, dominated ones greyed."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from affinage.report.frontier import AXES, Axis, Variant, cost_of, standing
from affinage.report.frontier_plots import draw_frontier
from affinage.report.plots import Plot
from affinage.report.report import Report
from affinage.report.sentences import HEADLINE, headline_speedup, main_metrics, pct, within

SCRIPT = "sort.js"
"""in `assets`: sorts a table by the column that is clicked; without it the table is a plain one"""
COLUMNS = (
    "#", "variant", ">score %", ">MB", ">times smaller", ">ms", ">times faster", ">peak MB", "on the frontier of",
    "budget",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """What a person reads, and what the column is sorted by."""

    text: str
    key: float | str


@dataclass(frozen=True)
class Row:
    """A variant."""

    cells: tuple[Cell, ...]
    dominated: bool
    mark: str
    """chosen, reference, or nothing"""


@dataclass(frozen=True)
class Frontier:
    """Of one task."""

    title: str
    lead: str
    plots: tuple[Plot, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def frontiers_of(report: Report) -> list[Frontier]:
    """One a task for which there are three variants or more, or two and a search."""
    by_task: dict[str, list[Variant]] = {}
    for variant in variants_of(report):
        by_task.setdefault(variant.task, []).append(variant)
    least = 2 if report.variants else 3
    return [_frontier(task, found) for task, found in by_task.items() if len(found) >= least]


def variants_of(report: Report) -> list[Variant]:
    """Those that were tried as such; else every system, task by task, by its first metric."""
    if report.variants:
        return list(report.variants)
    main, found = main_metrics(report), []
    for score in report.scores:
        entry = next((model for model in report.models if model.name == score.model), None)
        if entry is None or main[score.task] != score.metric:
            continue
        speed = headline_speedup(report, entry.name)
        engine, cell = (speed.engine, (speed.batch, speed.length)) if speed else (None, HEADLINE)
        times = (
            row for row in report.latency
            if row.model == entry.name and (row.batch, row.length) == cell and engine in (None, row.engine)
        )  # fmt: skip
        timed = next(times, None)
        cost = next(
            (c for c in report.costs if c.model == entry.name and (not timed or c.engine == timed.engine)), None
        )
        first = entry.name == report.models[0].name
        found.append(
            Variant(
                name=entry.name, plan="", task=score.task, metric=score.metric, split=score.split, score=score.value,
                low=score.low, high=score.high, n=score.n, seeds=score.seeds, parameters=entry.parameters,
                size_bytes=entry.size_bytes, latency_ms=timed.p50_ms if timed else None,
                speedup=speed.ratio if speed else 1.0 if first and timed else None,
                speedup_low=speed.low if speed else None, speedup_high=speed.high if speed else None,
                engine=timed.engine if timed else None, memory_bytes=cost.peak_memory_bytes if cost else None,
                reference=first,
            )
        )  # fmt: skip
    return found


def sort_script() -> tuple[str, str]:
    """The script, and its hash as a Content-Security-Policy names it."""
    text = (resources.files("affinage") / "assets" / SCRIPT).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return text, f"'sha256-{digest}'"


def _frontier(task: str, variants: Sequence[Variant]) -> Frontier:
    on = standing(variants)
    order = sorted(variants, key=lambda v: (not on(v), -v.score, v.size_bytes))
    reference = next((v for v in variants if v.reference), None)
    numbers = {id(variant): place for place, variant in enumerate(order, start=1)}
    rows = [_row(variant, numbers[id(variant)], on(variant), reference) for variant in order]
    axes = [axis for axis in AXES if sum(cost_of(v, axis) is not None for v in variants) > 1]
    plots = [draw_frontier(task, order, axis, numbers) for axis in axes]
    beaten = sum(not on(v) for v in variants)
    one = variants[0]
    lead = (
        f"{len(variants)} variants by {one.metric}{f' on the {one.split} part' if one.split else ''}; {beaten} of them "
        "are dominated: another is as good at no higher cost, in latency, size and memory alike."
    )
    return Frontier(f"Frontier: {task}", lead, tuple(plots), tuple(rows), tuple(_notes(variants)))


def _notes(variants: Sequence[Variant]) -> list[str]:
    notes = []
    if any(v.low is not None for v in variants):
        notes.append("Bars and brackets are 95 % intervals of the score; those that overlap may not be told apart.")
    engines = sorted({v.engine for v in variants if v.engine})
    if engines:
        notes.append(
            f"Latency: median of one text of 128 tokens, or as many as the model takes, in {' and '.join(engines)}; "
            "times faster: beside the uncompressed model in one interleaved run."
        )
    if any(v.memory_bytes for v in variants):
        notes.append(
            "Peak memory: the largest resident set of a fresh process that loads the model and answers, its libraries "
            "included."
        )
    if any(v.chosen for v in variants):
        notes.append("The chosen one was chosen by these scores: judge it by its test part, where there is one.")
    return notes


def _row(variant: Variant, number: int, on: Sequence[Axis], reference: Variant | None) -> Row:
    smaller = reference.size_bytes / variant.size_bytes if reference else None
    faster = "" if variant.speedup is None else f"{variant.speedup:.2f}"
    if variant.speedup_low is not None and variant.speedup_high is not None:
        faster += f" ({variant.speedup_low:.2f} to {variant.speedup_high:.2f})"
    budget = {True: "within", False: "over", None: ""}[variant.within]
    cells = (
        Cell(str(number), number),
        Cell(variant.name, variant.name.lower()),
        Cell(f"{pct(variant.score)}{within(variant.low, variant.high)}", variant.score),
        Cell(f"{variant.size_bytes / 1e6:,.2f}", variant.size_bytes),
        Cell("" if smaller is None else f"{smaller:.2f}", smaller or 0),
        Cell("" if variant.latency_ms is None else f"{variant.latency_ms:.2f}", variant.latency_ms or 1e99),
        Cell(faster, variant.speedup or 0),
        Cell("" if not variant.memory_bytes else f"{variant.memory_bytes / 1e6:,.0f}", variant.memory_bytes or 1e99),
        Cell(", ".join(on) if on else "dominated", -len(on)),
        Cell(budget, {"within": 0, "over": 1, "": 2}[budget]),
    )
    mark = "chosen" if variant.chosen else "reference" if variant.reference else ""
    return Row(cells, not on, mark)
