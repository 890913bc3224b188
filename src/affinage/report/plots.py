"""The plots of a report, as SVG that takes its colours and its font from the page, each with the same in words."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from affinage.report.report import Comparison, Report, Score, Source
from affinage.report.sentences import (
    conditions,
    headline_speedup,
    is_system,
    main_comparisons,
    main_metrics,
    nothing_to_claim,
    pct,
    within,
)

INK, SOFT, LINE, FLOOR = "#000001", "#000002", "#000003", "#000004"
SERIES = ("#000010", "#000011", "#000012", "#000013", "#000014", "#000015")
_VARIABLES = {
    **{INK: "--ink", SOFT: "--soft", LINE: "--line", FLOOR: "--floor"},
    **{colour: f"--series-{i}" for i, colour in enumerate(SERIES)},
}
"""colour while it is drawn -> the page's own"""
_MARKERS = "osD^vP"
_NAME = 28
"""characters of a name beside a bar; a longer one, of a model made by several steps, goes on below"""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.linewidth": 0.8,
    "text.parse_math": False,  # a `$` in a name is a dollar
    "text.usetex": False,
}


@dataclass(frozen=True)
class Plot:
    """A plot and what it shows in words."""

    title: str
    svg: str
    text: str


def plots_of(report: Report) -> list[Plot]:
    """Every plot that there are figures for."""
    return [*score_bars(report), *kept_against_speed(report), *loss_curves(report)]


def score_bars(report: Report) -> list[Plot]:
    """One plot a task: baseline, reference and the other systems, with intervals."""
    order = {model.name: place for place, model in enumerate(report.models)}
    plots = []
    for task, metric in main_metrics(report).items():
        group = [s for s in report.scores if (s.task, s.metric) == (task, metric)]
        group.sort(key=lambda s: order.get(s.model, -1))
        names = [fill(s.model, _NAME) if is_system(report, s) else s.model.replace(" of ", "\nof ") for s in group]
        row_height = max(0.48, 0.18 * max(1 + name.count("\n") for name in names))
        with drawing(3.8, 0.7 + row_height * len(group), f"scores-{task}") as (axes, finished):
            for row, score in enumerate(group):
                _bar(axes, row, score, SERIES[order[score.model] % len(SERIES)] if is_system(report, score) else FLOOR)
            axes.set_yticks(range(len(group)), names)
            axes.set_ylim(len(group) - 0.4, -0.6)
            lowest = min(100 * min(s.value, s.value if s.low is None else s.low) for s in group)  # of a correlation
            axes.set_xlim(min(0, 1.1 * lowest), 115)
            axes.set_xticks([tick for tick in range(-100, 101, 25) if tick >= min(0, lowest)])
            axes.grid(axis="x", color=LINE, linewidth=0.6)
        told = "; ".join(f"{s.model} {pct(s.value)} %{within(s.low, s.high)}" for s in group)
        plots.append(Plot(f"{task}: {metric}, %", finished[0], f"{told}. Intervals are 95 %; n = {group[0].n:,}."))
    return plots


def kept_against_speed(report: Report) -> list[Plot]:
    """What each system kept of each task against its speed-up: plain, and above the baseline."""
    speeds = {m.name: s for m in report.models[1:] if (s := headline_speedup(report, m.name))}
    rows = [c for c in main_comparisons(report) if c.model in speeds and not nothing_to_claim(c)]
    plots = []
    for title, found in (
        ("Kept, plain, against speed", [(c, c.plain, c.plain_low, c.plain_high) for c in rows]),
        (
            "Kept above the baseline, against speed",
            [(c, c.retention, c.retention_low, c.retention_high) for c in rows],
        ),
    ):
        points = [(c, value, low, high) for c, value, low, high in found if value is not None]
        if not points:
            continue
        fastest = max(speeds[c.model].ratio for c in rows)
        with drawing(4.6, 3.6, title) as (axes, finished):
            axes.axhline(100, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
            axes.plot([1], [100], marker="*", markersize=11, color=INK, linestyle="none", label=report.models[0].name)
            tasks = list(dict.fromkeys(c.task for c in rows))
            step = 0.03 * max(fastest, 1.5)
            for c, value, low, high in points:
                place = tasks.index(c.task)
                x = speeds[c.model].ratio + step * (place - (len(tasks) - 1) / 2)
                _point(axes, c, place, x=x, figures=(value, low, high), several=len(speeds) > 1)
            axes.set_xlabel("times as fast", color=SOFT)
            axes.set_ylabel("kept, %", color=SOFT)
            axes.set_xlim(min(0.8, *(0.9 * s.ratio for s in speeds.values())), 1.15 * max(fastest, 1))
            axes.grid(color=LINE, linewidth=0.6)
            handles, labels = axes.get_legend_handles_labels()
            first = {label: handle for handle, label in reversed(list(zip(handles, labels, strict=True)))}
            _legend(axes, list(first.values())[::-1], list(first)[::-1], columns=3)
        told = "; ".join(
            f"{c.model} on {c.task} {pct(value)} %{within(low, high)} at {speeds[c.model].ratio:.2f} times the speed"
            for c, value, low, high in points
        )
        where = conditions(report, next(iter(speeds.values())))
        beside = " Tasks of one system are set side by side." if len(tasks) > 1 else ""
        left_out = [c.task for c in main_comparisons(report) if nothing_to_claim(c)]
        less = f" Not informative, and left out: {', '.join(dict.fromkeys(left_out))}." if left_out else ""
        plots.append(Plot(title, finished[0], f"{told}. Speed: {where}.{beside}{less}"))
    return plots


def loss_curves(report: Report) -> list[Plot]:
    """One plot for each pre-training and distillation that logged its losses."""
    plots = []
    for number, source in enumerate(report.sources):
        names = _losses(source)
        if source.training is None or not names:
            continue
        told = []
        with drawing(3.8, 2.9, f"losses-{number}") as (axes, finished):
            for place, name in enumerate(names):
                curve = source.training.curves[name]
                steps, values = zip(*curve, strict=True)
                held = name.startswith("held-out")
                axes.plot(
                    steps, values, label=name, color=SERIES[place % len(SERIES)], linewidth=1.6,
                    marker="o" if held or len(curve) == 1 else None, markersize=3.5, linestyle="--" if held else "-",
                )  # fmt: skip
                told.append(f"{name} {values[0]:.3g} at step {steps[0]:,}, {values[-1]:.3g} at step {steps[-1]:,}")
            axes.set_xlabel("steps", color=SOFT)
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.grid(color=LINE, linewidth=0.6)
            _legend(axes, *axes.get_legend_handles_labels(), columns=2)
        plots.append(Plot(f"Losses of {source.model} ({source.command})", finished[0], "; ".join(told) + "."))
    return plots


def _losses(source: Source) -> list[str]:
    """The curves to draw: the loss in training and on held-out text, and its parts where there are several."""
    curves = {} if source.training is None else source.training.curves
    parts = [name for name in (source.training.losses if source.training else ()) if name != "loss"]
    wanted = ["loss", "held-out loss", *(parts if len(parts) > 1 else ())]
    return [name for name in wanted if curves.get(name)]


def _bar(axes: Axes, row: int, score: Score, colour: str) -> None:
    low, high = (score.value if bound is None else bound for bound in (score.low, score.high))
    axes.barh([row], [100 * score.value], height=0.62, color=colour)
    axes.plot([100 * low, 100 * high], [row, row], color=INK, linewidth=1.4, solid_capstyle="butt")
    axes.text(100 * max(high, score.value) + 2, row, pct(score.value), va="center", color=INK)


def _point(
    axes: Axes,
    c: Comparison,
    place: int,
    *,
    x: float,
    figures: tuple[float, float | None, float | None],
    several: bool,
) -> None:
    colour = SERIES[(place + 2) % len(SERIES)]  # not those of the systems
    value, low, high = figures
    if low is not None and high is not None:
        axes.plot([x, x], [100 * low, 100 * high], color=colour, linewidth=1.6)
    marker = _MARKERS[place % len(_MARKERS)]
    axes.plot([x], [100 * value], marker=marker, markersize=7, color=colour, linestyle="none", label=c.task)
    if several:
        axes.annotate(c.model, (x, 100 * value), textcoords="offset points", xytext=(7, 3), color=SOFT, fontsize=8)


def _legend(axes: Axes, handles: Sequence[Artist], labels: Sequence[str], *, columns: int) -> None:
    axes.get_figure().legend(  # type: ignore[union-attr]
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, labelcolor=INK,
        handletextpad=0.5, columnspacing=1.4,
    )  # fmt: skip


@contextmanager
def drawing(width: float, height: float, name: str) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on, of that many inches; afterwards the list holds the SVG."""
    finished: list[str] = []
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), facecolor="none", layout="constrained")
        axes = figure.add_subplot(facecolor="none")
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(LINE)
        axes.tick_params(color=LINE, labelcolor=INK, length=0)
        axes.set_axisbelow(True)
        yield axes, finished
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    finished.append(_for_page(stream.getvalue().decode("utf-8"), re.sub(r"\W+", "-", name)))


def _for_page(svg: str, name: str) -> str:
    """The drawing without anything that points outside it, with ids of its own and the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    svg = f'<svg {box[0] if box else ""} aria-hidden="true" focusable="false">{rest}'
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"(href=\"|url\()#", rf"\1#{name}-", svg).replace("xlink:href", "href")
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.strip()
