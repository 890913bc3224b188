"""The tables of a report on several systems: the article's tables 1 and 2, and what is behind them."""

from collections.abc import Sequence
from dataclasses import dataclass

from affinage.report.report import Comparison, Report, Score
from affinage.report.sentences import (
    conditions,
    facts_of,
    headline_speedup,
    is_system,
    made_by,
    main_metrics,
    nothing_to_claim,
    pct,
    signed,
    times,
    title_of,
    told_apart,
    within,
)
from affinage.report.speed import markdown, speed_tables


@dataclass(frozen=True)
class Table:
    """A table for people; columns named with a leading `>` are aligned to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def to_markdown(self) -> str:
        """Heading, table and notes."""
        return "\n\n".join([f"## {self.title}", markdown(self.columns, self.rows), *self.notes])


def report_markdown(report: Report) -> str:
    """The report as a page of Markdown."""
    from affinage.report.frontier_page import COLUMNS, frontiers_of  # which draws, and needs matplotlib for it

    facts = "\n".join(f"- {fact}" for fact in facts_of(report))
    found = [Table(f.title, COLUMNS, tuple(tuple(c.text for c in r.cells) for r in f.rows), (f.lead, *f.notes))
             for f in frontiers_of(report)]  # fmt: skip
    blocks = [f"# {title_of(report)}", facts, *(t.to_markdown() for t in [*found, *tables_of(report)]), made_by(report)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def tables_of(report: Report) -> list[Table]:
    """Every table that has rows, in their order on the page."""
    speed = [
        Table("Cost" if ">load s" in columns else "Speed, times of one batch", columns, tuple(rows))
        for columns, rows in speed_tables(report)
    ]
    tables = (structure_table(report), score_table(report), metric_table(report), *speed, source_table(report))
    return [table for table in tables if table.rows]


def structure_table(report: Report) -> Table:
    """The article's table 1."""
    rows = []
    for place, model in enumerate(report.models):
        speedup = headline_speedup(report, model.name)
        rows.append(
            (
                model.name,
                str(model.layers),
                "" if model.hidden_size is None else f"{model.hidden_size:,}",
                f"{model.parameters:,}",
                *model.stored(),
                "1" if not place else "not measured" if speedup is None else times(speedup),
            )
        )
    measured = next((s for m in report.models if (s := headline_speedup(report, m.name))), None)
    notes = [f"Speed-up: {conditions(report, measured)}; 95 % interval over paired rounds."] if measured else []
    kinds = {model.stored_as for model in report.models}
    if len(report.models) > 1 and (len(kinds) > 1 or None in kinds):
        alike = ", ".join(f"{model.name} {4 * model.parameters / 1e6:,.1f}" for model in report.models)
        notes.append(f"MB stored are not to be compared: the precision differs or is unknown. In fp32: {alike} MB.")
    columns = ("model", ">layers", ">hidden size", ">parameters", ">MB stored", "stored as", ">speed-up")
    return Table("Table 1. Structure and speed", columns, tuple(rows), tuple(notes))


def score_table(report: Report) -> Table:
    """The article's table 2: the first metric of every task, baseline and systems, and what was kept."""
    main = main_metrics(report)
    scores = [score for score in report.scores if main[score.task] == score.metric]
    notes = [
        "Scores are of the test part unless a row says otherwise, means over fine-tuning seeds; intervals are 95 %, by "
        "bootstrap over seeds and examples. Differences are in points, the examples paired; p-values are per task, not "
        "corrected for how many there are.",
    ]
    if any(len(score.seeds) == 1 for score in scores):
        notes.append("1 seed: the interval is over examples alone and says nothing of another training run.")
    notes += [f"{note}." for note in report.notes]
    if report.comparisons:
        notes.append(
            "Kept, plain: score / reference's score, as the article counts. Kept above the baseline: "
            "(score − baseline) / (reference − baseline). Not informative: the reference is not significantly above "
            "the baseline, and nothing is claimed."
        )
    return _scores(report, scores, title="Table 2. Scores, and what is kept of them", notes=tuple(notes))


def metric_table(report: Report) -> Table:
    """The other metrics, in the same form."""
    main = main_metrics(report)
    others = [score for score in report.scores if main[score.task] != score.metric]
    return _scores(report, others, title="Other metrics", notes=())


def kept_table(report: Report) -> Table:
    """What each model keeps of the reference's scores."""
    rows = [(c.task, c.metric, c.model, _beside(c), *_kept(c), f"{c.n:,}") for c in report.comparisons]
    reference = report.comparisons[0].reference if report.comparisons else "the reference"
    columns = ("task", "metric", "model", f"beside {reference}", ">kept, plain %", ">kept above the baseline %", ">n")
    return Table("What is kept", columns, tuple(rows))


def source_table(report: Report) -> Table:
    """What the report was made from, and where each was measured."""
    rows = []
    for source in report.sources:
        machine = source.provenance.hardware
        where = f"{machine.cpu}, {machine.cores} cores" + (f", {machine.accelerator}" if machine.accelerator else "")
        rows.append((source.path, source.command, source.task or "", where, source.provenance.date[:10]))
    return Table("Sources", ("folder", "made by", "task", "on", "date"), tuple(rows))


def _scores(report: Report, scores: Sequence[Score], *, title: str, notes: tuple[str, ...]) -> Table:
    """Task by task, the baseline first, then the systems."""
    compared = {(c.model, c.task, c.metric): c for c in report.comparisons}
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.task, score.metric), []).append(score)
    rows = []
    for (task, metric), group in groups.items():
        part = group[0].split
        head = f"{task}: {metric}" + (f" ({part} part)" if part and part != "test" else "")
        for score in sorted(group, key=lambda s: is_system(report, s)):
            system = is_system(report, score)
            c = compared.get((score.model, task, metric)) if system else None
            seeds = f"{len(score.seeds)} seed{'s' * (len(score.seeds) > 1)}" if score.seeds else ""
            value = f"{pct(score.value)}{within(score.low, score.high)}"
            name = score.model if system else f"{score.model} (baseline)"
            rows.append((head, name, value, seeds, f"{score.n:,}", _beside(c), *_kept(c)))
    beside = f"beside {report.models[0].name}" if report.models else "beside the reference"
    kept = (">kept, plain %", ">kept above the baseline %")
    return Table(title, ("task", "system", ">score %", ">seeds", ">n", beside, *kept), tuple(rows), notes)


def _beside(c: Comparison | None) -> str:
    """The difference, or that there is none to be told."""
    if c is None or nothing_to_claim(c):
        return ""
    figures = f"{signed(c.difference)} ({signed(c.low)} to {signed(c.high)})"
    if not told_apart(c):
        return f"{figures}: not told apart (n = {c.n:,})"
    p = "< 0.001" if c.p_value < 0.001 else f"= {c.p_value:.3f}"
    return f"{figures}, p {p} ({c.test})"


def _kept(c: Comparison | None) -> tuple[str, str]:
    if c is None:
        return "", ""
    if nothing_to_claim(c):
        return "", f"not informative, baseline {pct(c.baseline or 0)}"
    plain = "" if c.plain is None else f"{pct(c.plain)}{within(c.plain_low, c.plain_high)}"
    if c.baseline is None:
        return plain, "no baseline given"
    kept = "" if c.retention is None else f"{pct(c.retention)}{within(c.retention_low, c.retention_high)}"
    return plain, f"{kept}, baseline {pct(c.baseline)}"
