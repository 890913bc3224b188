"""A frontier drawn: score against a cost, what no other beats joined by a line, the rest in grey, intervals upright."""

from collections.abc import Mapping, Sequence

from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from affinage.report.frontier import Axis, Variant, cost_of, frontier
from affinage.report.plots import FLOOR, INK, LINE, SERIES, SOFT, Plot, drawing
from affinage.report.sentences import pct

_UNITS: Mapping[Axis, tuple[str, float]] = {
    "latency": ("ms for one text", 1.0),
    "size": ("MB stored", 1e6),
    "memory": ("MB of memory, peak", 1e6),
}
_WIDE = 4.0
"""from which ratio of the largest to the smallest cost on the axis is logarithmic"""


def draw_frontier(task: str, variants: Sequence[Variant], axis: Axis, numbers: Mapping[int, int]) -> Plot:
    """Points bear the numbers of the table's rows (`numbers`: by `id`)."""
    label, unit = _UNITS[axis]
    known = [(v, cost / unit) for v in variants if (cost := cost_of(v, axis)) is not None]
    best = frontier(variants, axis)
    costs = [cost for _, cost in known]
    with drawing(4.6, 3.5, f"frontier-{task}-{axis}") as (axes, finished):
        line = [(cost_of(v, axis) or 0.0, v.score) for v in best]
        axes.step([x / unit for x, _ in line], [100 * y for _, y in line], where="post", color=SERIES[0], linewidth=1.2,
                  alpha=0.55)  # fmt: skip
        for variant, cost in known:
            on = any(variant is one for one in best)
            colour = SERIES[0] if on else FLOOR
            if variant.low is not None and variant.high is not None:
                axes.plot([cost, cost], [100 * variant.low, 100 * variant.high], color=colour, linewidth=1.1,
                          alpha=1.0 if on else 0.7, solid_capstyle="butt")  # fmt: skip
            marker, size = ("*", 11.0) if variant.reference else ("D", 7.5) if variant.chosen else ("o", 6.0)
            shown = INK if variant.reference else SERIES[1] if variant.chosen else colour
            axes.plot([cost], [100 * variant.score], marker=marker, markersize=size, color=shown, linestyle="none")
            if on or variant.reference or variant.chosen:
                axes.annotate(str(numbers[id(variant)]), (cost, 100 * variant.score), textcoords="offset points",
                              xytext=(5, 4), color=INK, fontsize=8.5)  # fmt: skip
        if max(costs) > _WIDE * min(costs) > 0:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlim(min(costs) / 1.3, max(costs) * 1.35)
        else:
            axes.set_xlim(0.85 * min(costs), 1.12 * max(costs))
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
        axes.set_xlabel(label, color=SOFT)
        axes.set_ylabel(f"{known[0][0].metric}, %", color=SOFT)
        axes.grid(color=LINE, linewidth=0.6)
    told = ", ".join(f"{numbers[id(v)]} ({pct(v.score)} % at {_said(v, axis)})" for v in best)
    return Plot(
        f"Score against {axis}",
        finished[0],
        f"On the frontier, cheapest first, by the numbers of the table: {told}. {_marks(known)}",
    )


def _said(variant: Variant, axis: Axis) -> str:
    cost = cost_of(variant, axis) or 0.0
    return f"{cost:,.2f} ms" if axis == "latency" else f"{cost / 1e6:,.1f} MB"


def _marks(known: Sequence[tuple[Variant, float]]) -> str:
    marks = ["Grey: dominated in this plot"]
    if any(variant.reference for variant, _ in known):
        marks.append("star: uncompressed")
    if any(variant.chosen for variant, _ in known):
        marks.append("diamond: chosen")
    return "; ".join(marks) + "."
