"""A report on several systems as one HTML page that needs nothing else: no file, no network; script only to sort."""

import re
from dataclasses import dataclass
from importlib import resources
from itertools import groupby

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from affinage.report.frontier_page import COLUMNS, frontiers_of, sort_script
from affinage.report.plots import Plot, plots_of
from affinage.report.report import Comparison, Report
from affinage.report.sentences import (
    conditions,
    facts_of,
    headline_speedup,
    made_by,
    main_comparisons,
    nothing_to_claim,
    pct,
    title_of,
    told_apart,
    within,
)
from affinage.report.tables import Table, tables_of

TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class Tile:
    """One figure to be seen from afar."""

    value: str
    label: str
    note: str


def report_html(report: Report) -> str:
    """The page. Whatever comes from the report is escaped."""
    text = (resources.files("affinage") / "assets" / TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    frontiers = frontiers_of(report)
    text_of_script, digest = sort_script()
    *tables, sources = tables_of(report) if report.sources else [*tables_of(report), None]
    return environment.from_string(text).render(
        title=title_of(report),
        facts=facts_of(report),
        tiles={model.name: tiles_of(report, model.name) for model in report.models[1:]},
        tables=tables,
        sources=sources,
        frontiers=frontiers,
        frontier_columns=COLUMNS,
        script=(Markup(text_of_script), Markup(digest)) if frontiers else None,
        plots=plots_of(report),
        drawn=_drawn,
        spans=_spans,
        glued=_glued,
        made_by=made_by(report),
    )


def tiles_of(report: Report, model: str) -> list[Tile]:
    """Speed, size, and task by task what a system kept."""
    entries = {entry.name: entry for entry in report.models}
    reference = report.models[0]
    tiles = []
    if speedup := headline_speedup(report, model):
        interval = f"{speedup.low:.2f} to {speedup.high:.2f}; {conditions(report, speedup)}"
        tiles.append(Tile(f"{speedup.ratio:.2f}×", f"as fast as {reference.name}", interval))
    share = 100 * entries[model].parameters / reference.parameters
    layers = f"{entries[model].layers} of {reference.layers} layers"
    tiles.append(Tile(f"{share:.0f} %", "of the parameters", layers))
    return tiles + [_kept(c) for c in main_comparisons(report) if c.model == model]


def _kept(c: Comparison) -> Tile:
    where = f"{c.task}, {c.metric}"
    if nothing_to_claim(c):
        return Tile("–", where, f"not informative: {c.reference} is not significantly above {pct(c.baseline or 0)} %")
    told = "" if told_apart(c) else f"; not told apart from {c.reference} (n = {c.n:,})"
    plain = "" if c.plain is None else f"plain {pct(c.plain)} %"
    if c.retention is None:
        return Tile(
            "–" if c.plain is None else f"{pct(c.plain)} %", f"{where}: kept, plain", f"no baseline given{told}"
        )
    label = f"{where}: kept above the baseline"
    return Tile(f"{pct(c.retention)} %", label, f"{within(c.retention_low, c.retention_high)[2:-1]}; {plain}{told}")


def _drawn(plot: Plot) -> Markup:
    """The drawing as it is: made by us, its texts escaped by matplotlib."""
    return Markup(plot.svg)


def _glued(cell: str) -> str:
    """A cell that is not broken over two lines inside brackets, or where it is short."""
    return re.sub(r"^.{,12}$|\([^)]*\)", lambda match: match[0].replace(" ", "\u00a0"), cell)


def _spans(table: Table) -> list[tuple[int, tuple[str, ...]]]:
    """Rows with the number of rows that the first cell stands for; 0 where the row above has it already."""
    if table.columns[0] != "task":
        return [(1, row) for row in table.rows]
    groups = [list(rows) for _, rows in groupby(table.rows, key=lambda row: row[0])]
    return [(0 if place else len(rows), row) for rows in groups for place, row in enumerate(rows)]
