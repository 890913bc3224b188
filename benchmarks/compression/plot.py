"""What is kept against times faster and times smaller, drawn for the page: one SVG a language that stands alone."""

import io
from collections.abc import Callable, Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from variants import AIMS, Variant, on_frontier

LEAST = 75.0
"""% kept; what keeps less stands on this line"""
ALONE, STACKED, GREY, SOFT = "#3d5f9e", "#d17a22", "#b9bdc5", "#5d6673"
AXES: Sequence[tuple[str, Callable[[Variant], float]]] = (
    ("times faster", lambda v: v.faster),
    ("times smaller", lambda v: v.smaller),
)


def drawn(screen: Sequence[Variant], final: Sequence[Variant], name: str) -> str:
    """The SVG: methods alone as circles, stacks as diamonds with intervals; grey: beaten by another of its kind.

    Of methods alone those that are not beaten bear their place in that list, of stacks all the letter of their row.
    """
    style = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9, "font.family": "sans-serif"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9.2, 3.9), facecolor="white", layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for place, (axes, (label, gain)) in enumerate(zip(panels, AXES, strict=True)):
            alone, stacks = on_frontier(screen, gain), on_frontier(final, gain)
            _points(axes, screen, alone, gain, "o", ALONE, {v.name: str(i) for i, v in enumerate(alone, 1)})
            _points(axes, final, stacks, gain, "D", STACKED, {v.name: letter(i) for i, v in enumerate(final)})
            for loss, *gains in AIMS:
                axes.plot(
                    [gains[place]], [100 * (1 - loss)], marker="+", markersize=11, color="black", linestyle="none"
                )
            _axis(axes, label)
        panels[0].set_ylabel("kept of the teacher's score, %")
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return stream.getvalue().decode("utf-8")


def letter(row: int) -> str:
    """Of a row of the table of stacks."""
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[row]


def _points(
    axes: Axes,
    found: Sequence[Variant],
    best: Sequence[Variant],
    gain: Callable[[Variant], float],
    marker: str,
    colour: str,
    marks: Mapping[str, str],
) -> None:
    def at(v: Variant) -> tuple[float, float]:
        return gain(v), max(LEAST, 100 * v.kept)

    if best:
        axes.step(*zip(*map(at, best), strict=True), where="pre", color=colour, linewidth=1.0, alpha=0.5)
    for v in sorted((v for v in found if v.complete), key=lambda v: v in best):
        shown, (x, y) = colour if v in best else GREY, at(v)
        if v.around is not None:
            bounds = [max(LEAST, 100 * (v.kept + side * v.around)) for side in (-1, 1)]
            axes.plot([x, x], bounds, color=shown, linewidth=1.0, alpha=0.7)
        axes.plot([x], [y], marker=marker, markersize=4.5, color=shown, linestyle="none")
        if v.name in marks:
            axes.annotate(marks[v.name], (x, y), textcoords="offset points", xytext=(4, 3), fontsize=7.5, color=SOFT)


def _axis(axes: Axes, label: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.set_xlabel(label)
    axes.set_ylim(bottom=LEAST - 1)
    axes.grid(color="#e2e0d9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
