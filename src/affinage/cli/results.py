"""How a report is shown to people, or as JSON."""

from typing import TYPE_CHECKING

from affinage.cli.console import say, write, write_table

if TYPE_CHECKING:
    from affinage.report.report import Report


def show_report(report: "Report", *, as_json: bool, out: object = None, quiet: bool = False) -> None:
    """The figures on stdout; where a model was written, its folder on stderr."""
    if as_json:
        write(report.to_json())
    else:
        _models(report)
        _ledger(report)
        _scores(report)
        _kept(report)
        _training(report)
    if out is not None and not quiet:
        say(f"saved in {out}")


def _models(report: "Report") -> None:
    rows = [(m.name, m.layers, f"{m.parameters:,}", *m.stored()) for m in report.models]
    if rows:
        write_table(("model", ">layers", ">parameters", ">MB stored", "stored as"), rows)


def _ledger(report: "Report") -> None:
    if report.ledger:
        from affinage.report.ledger import ledger_table

        columns, rows = ledger_table(report.ledger)
        write("")
        numbers = {"step", "parameters", "MB", "smaller", "ms", "score %", "trained"}
        write_table(tuple(f">{name}" if name in numbers else name for name in columns), rows)


def _scores(report: "Report") -> None:
    """Metric by metric. Which model a score is of is said where there are several; its baseline, where one is known."""
    several = len({s.model for s in report.scores}) > 1
    floor = any(s.baseline is not None for s in report.scores)
    measures = [(s.task, s.split, s.metric) for s in report.scores]
    rows = [
        (
            s.task,
            s.split or "",
            s.metric,
            *([s.model] if several else []),
            f"{100 * s.value:.1f}",
            "" if s.low is None or s.high is None else f"{100 * s.low:.1f} to {100 * s.high:.1f}",
            *(["" if s.baseline is None else f"{100 * s.baseline:.1f}"] if floor else []),
            f"{s.n:,}",
        )
        for s in sorted(report.scores, key=lambda s: measures.index((s.task, s.split, s.metric)))
    ]
    if rows:
        model, baseline = ["model"] if several else [], [">baseline %"] if floor else []
        write("")
        write_table(("task", "part", "metric", *model, ">score %", ">95 % interval", *baseline, ">n"), rows)
    for note in report.notes:
        write(f"{note}.")


def _kept(report: "Report") -> None:
    if report.comparisons:
        from affinage.report.tables import kept_table

        table = kept_table(report)
        write("")
        write_table(table.columns, list(table.rows))


def _training(report: "Report") -> None:
    if report.training is not None:
        write("")
        write_table(("training", ">"), report.training.facts())
