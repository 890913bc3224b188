"""What a report on several systems says in words: figures with their intervals, and no more than they tell."""

from affinage.report.report import Comparison, Latency, Report, Score, Speedup

HEADLINE = (1, 128)
"""batch and tokens of the speed-up that stands for all, where it was measured"""


def title_of(report: Report) -> str:
    """What the report is about."""
    names = [model.name for model in report.models]
    return f"{', '.join(names[1:])} beside {names[0]}" if len(names) > 1 else "".join(names) or "Report"


def facts_of(report: Report) -> list[str]:
    """What the figures say, in sentences: size, speed, and task by task what was kept or cannot be told."""
    facts = []
    for model in report.models[1:]:
        reference = report.models[0]
        share = f"{100 * model.parameters / reference.parameters:.0f} % of its parameters"
        facts.append(
            f"{model.name} has {model.layers} layers to the {reference.layers} of {reference.name}, and {share}."
        )
        if speedup := headline_speedup(report, model.name):
            fast = f"{model.name} is {times(speedup)} times as fast as {reference.name}"
            facts.append(f"{fast} ({conditions(report, speedup)}).")
        facts += [verdict(c) for c in main_comparisons(report) if c.model == model.name]
    return facts


def verdict(comparison: Comparison) -> str:
    """One comparison in a sentence."""
    c = comparison
    where = f"{c.task} ({c.metric})"
    if nothing_to_claim(c):
        floor = f"the baseline of {pct(c.baseline or 0)} %"
        return f"{where}: not informative. {c.reference} is not significantly above {floor}, and nothing is claimed."
    kept = ""
    if c.plain is not None:
        kept = f"; kept {pct(c.plain)} % of the plain score{within(c.plain_low, c.plain_high)}"
    if c.retention is not None:
        kept += f", {pct(c.retention)} % of what is above the baseline{within(c.retention_low, c.retention_high)}"
    if not told_apart(c):
        return f"{where}: {c.model} and {c.reference} are not told apart (n = {c.n:,}){kept}."
    side = "above" if c.difference > 0 else "below"
    points = f"{pct(abs(c.difference))} points {side} {c.reference}"
    return (
        f"{where}: {c.model} is {points} (95 % interval of the difference {signed(c.low)} to {signed(c.high)}){kept}."
    )


def made_by(report: Report) -> str:
    """The last line: command, version, date."""
    p = report.provenance
    return f"Made by `{p.command}`, affinage {p.affinage}, {p.date[:10]}."


def main_metrics(report: Report) -> dict[str, str]:
    """Task -> its first metric, the one that selects checkpoints."""
    found: dict[str, str] = {}
    for score in report.scores:
        found.setdefault(score.task, score.metric)
    return found


def main_comparisons(report: Report) -> list[Comparison]:
    """Those of every task's first metric."""
    main = main_metrics(report)
    return [c for c in report.comparisons if main[c.task] == c.metric]


def headline_speedup(report: Report, model: str) -> Speedup | None:
    """The speed-up over the reference that stands for all: batch 1, 128 tokens, else the first that was measured."""
    rows = [s for s in report.speedups if s.model == model and s.reference == report.models[0].name]
    return min(rows, key=lambda s: ((s.batch, s.length) != HEADLINE, s.batch != HEADLINE[0]), default=None)


def conditions(report: Report, speedup: Speedup) -> str:
    """How a speed-up was measured."""
    same = (speedup.engine, speedup.batch, speedup.length)
    threads = next((row.threads for row in report.latency if (row.engine, row.batch, row.length) == same), None)
    told = "" if threads is None else f", {threads} thread{'s' * (threads > 1)}"
    return f"{speedup.engine}{told}, batch {speedup.batch}, {length_of(speedup)} tokens"


def is_system(report: Report, score: Score) -> bool:
    """Whether a score is of a system; else it is a baseline's."""
    return any(model.name == score.model for model in report.models)


def told_apart(comparison: Comparison) -> bool:
    """Whether the interval of the difference leaves 0 out."""
    return not comparison.low <= 0 <= comparison.high


def nothing_to_claim(comparison: Comparison) -> bool:
    """Whether there is a baseline and the reference is not significantly above it."""
    return comparison.baseline is not None and not comparison.informative


def pct(fraction: float) -> str:
    """0.9123 -> 91.2"""
    return f"{100 * fraction:.1f}".replace("-", "−")


def signed(fraction: float) -> str:
    """-0.0123 -> −1.2"""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def within(low: float | None, high: float | None) -> str:
    """` (90.1 to 92.3)`, or nothing where there is no interval."""
    return "" if low is None or high is None else f" ({pct(low)} to {pct(high)})"


def times(speedup: Speedup) -> str:
    """1.94 (1.92 to 1.97)"""
    return f"{speedup.ratio:.2f} ({speedup.low:.2f} to {speedup.high:.2f})"


def length_of(row: Latency | Speedup) -> str:
    """Tokens of a row, or that they are mixed."""
    return "mixed" if row.length is None else str(row.length)
