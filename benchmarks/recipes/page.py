"""Writes docs/choosing.md from what is kept of the comparison of recipes; --check says whether it is stale.

What has not been run says so; a recommendation is made only where every recipe has a score on every task.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from statistics import median

from jobs import AUGMENTED, BASE, HALF, LANGUAGES, LONGER, NARROW, WINNER, Language, Shape, Task
from kept import BESIDE, HERE, RUNS, SECONDS

from affinage.data.task import load_task, task_names
from affinage.report.report import Comparison, Report
from affinage.report.sentences import pct, signed, within
from affinage.report.speed import markdown
from affinage.workflows.suite import MACRO

PAGE = HERE.parent.parent / "docs" / "choosing.md"
BEGIN, END = "<!-- made by `python benchmarks/recipes/page.py` -->\n", "<!-- end of what is made -->\n"
NOT_RUN = "not run yet"
NAMES = {"en": "English", "fr": "French"}


@dataclass(frozen=True)
class Line:
    """A recipe of the comparison."""

    recipe: str
    system: str
    """as reports call it"""
    of_runs: str
    """how its runs' folders are called, before task and seed"""
    on_task: bool


@dataclass(frozen=True)
class Average:
    """A recipe's mean score over the teacher's, on the tasks that both were run on."""

    kept: float
    low: float
    high: float
    tasks: int

    def __str__(self) -> str:
        return f"{pct(self.kept)}{within(self.low, self.high)}"


def lines(language: Language, shape: Shape = HALF) -> list[Line]:
    """The recipes on tasks, then those on text; without one that no task of the language is for."""
    half, before = shape is HALF, shape.prefix
    names = (*shape.on_tasks, AUGMENTED) if half else shape.on_tasks
    on_tasks = [Line(r, f"teacher by {r}", f"{before}{r}-on", True) for r in names]
    on_text = [Line(r, before + r, before + r, False) for r in (language.general if half else language.narrow)]
    return [*(one for one in on_tasks if tasks_of(one, language)), *on_text]


def tasks_of(line: Line, language: Language) -> list[Task]:
    """Those that the recipe is run on."""
    return [task for task in language.tasks if line.recipe != AUGMENTED or task.augmented]


def average(line: Line, language: Language, report: Report) -> Average | None:
    """Mean score / teacher's mean score, with a 95 % interval from the tasks' own, taken as independent."""
    found = [c for t in language.tasks if (c := compared(report.comparisons, line.system, t)) and c.plain is not None]
    if not found:
        return None
    mains = {(task.name, first_metric(task.name)) for task in language.tasks}
    teacher = {s.task: s.value for s in report.scores if s.model == "teacher" and (s.task, s.metric) in mains}
    total = sum(teacher[c.task] for c in found)
    kept = 1 + sum(c.difference for c in found) / total
    around = sqrt(sum(((c.high - c.low) / 2) ** 2 for c in found)) / total
    return Average(kept, kept - around, kept + around, len(found))


def compared(found: Sequence[Comparison], system: str, task: Task) -> Comparison | None:
    """A system beside the reference, by the task's first metric."""
    metric = first_metric(task.name)
    return next((c for c in found if (c.model, c.task, c.metric) == (system, task.name, metric)), None)


def first_metric(task: str) -> str:
    return load_task(task).metrics[0]


def seconds(line: Line, language: Language, runs: Path) -> float | None:
    """Time of a step over that of plain fine-tuning (or, of text, of BASE's recipe): median over tasks and seeds."""
    ratios = []
    if not line.on_task:
        ours, base = (step_seconds(runs / language.name / name) for name in (line.of_runs, BASE))
        return None if ours is None or base is None else ours / base
    for task in language.tasks:
        for seed in range(task.seeds):
            names = (f"{line.of_runs}-{task.name}-{seed}", f"{BASE}-{task.name}-{seed}")
            ours, base = (step_seconds(runs / language.name / name) for name in names)
            if ours is not None and base is not None:
                ratios.append(ours / base)
    return median(ratios) if ratios else None


def step_seconds(run: Path) -> float | None:
    file = run / SECONDS
    return float(json.loads(file.read_text(encoding="utf-8"))["step_seconds"]) if file.is_file() else None


def language_part(language: Language, report: Report | None, beside: Sequence[Comparison], runs: Path) -> str:
    """The figures of a language."""
    title = f"## {NAMES[language.name]}\n"
    if report is None:
        return f"{title}\nNot run yet.\n"
    return "\n".join([title, *table_and_choice(language, report, runs), *beside_part(language, beside)])


def narrow_part(language: Language, report: Report, runs: Path) -> str:
    """The figures of the narrow students."""
    theirs = replace(language, tasks=tuple(task for task in language.tasks if task.name in language.narrow_tasks))
    return "\n".join(["### Half the width instead\n", *table_and_choice(theirs, report, runs, NARROW)])


def table_and_choice(language: Language, report: Report, runs: Path, shape: Shape = HALF) -> list[str]:
    """What every recipe keeps on every task, and which keeps most."""
    columns = [
        "recipe",
        "on",
        *(f">{t.name}, {first_metric(t.name)}" for t in language.tasks),
        ">average",
        ">time a step",
    ]
    teacher = [score_cell(report, "teacher", task) for task in language.tasks]
    rows = [("*teacher, score*", "", *teacher, "", "")]
    averages: dict[str, Average] = {}
    for line in lines(language, shape):
        cells = []
        for task in language.tasks:
            one = compared(report.comparisons, line.system, task)
            planned = task in tasks_of(line, language)
            cells.append(kept_cell(report, line, task, one) if one else NOT_RUN if planned else "–")
        mean, time = average(line, language, report), seconds(line, language, runs)
        told = NOT_RUN if mean is None else str(mean)
        if mean is not None and line.recipe != AUGMENTED:
            averages[line.recipe + (" on task" if line.on_task else "")] = mean
        if mean is not None and mean.tasks < len(language.tasks):
            told += f", of {mean.tasks} of {len(language.tasks)} tasks"
        rows.append(
            (f"`{line.recipe}`", "task" if line.on_task else "text", *cells, told, f"{time:.2f}" if time else "")
        )
    wanted = sum(line.recipe != AUGMENTED for line in lines(language, shape))
    return [markdown(columns, rows), "", *choice(language, averages, wanted), ""]


def score_cell(report: Report, system: str, task: Task) -> str:
    metric = first_metric(task.name)
    found = next((s for s in report.scores if (s.model, s.task, s.metric) == (system, task.name, metric)), None)
    if found is None:
        return NOT_RUN
    base = "" if found.baseline is None else f", baseline {pct(found.baseline)}"
    return f"{pct(found.value)}{within(found.low, found.high)}{base}"


def kept_cell(report: Report, line: Line, task: Task, one: Comparison) -> str:
    """What is kept, and of how many seeds where it is not yet all of them."""
    if one.plain is None:
        return "–"
    score = next(s for s in report.scores if (s.model, s.task, s.metric) == (line.system, task.name, one.metric))
    few = f", {len(score.seeds)} of {task.seeds} seeds" if len(score.seeds) < task.seeds else ""
    doubt = "" if one.informative else ", teacher not above the baseline"
    return f"{pct(one.plain)}{within(one.plain_low, one.plain_high)}{few}{doubt}"


def choice(language: Language, averages: Mapping[str, Average], wanted: int) -> list[str]:
    """Which one keeps most, where everything has been run."""
    everywhere = {name: a for name, a in averages.items() if a.tasks == len(language.tasks)}
    if len(everywhere) < wanted:
        return [f"- No choice yet: {len(everywhere)} of {wanted} recipes have a score on every task."]
    best = max(everywhere, key=lambda name: everywhere[name].kept)
    level = [name for name in everywhere if everywhere[name].high >= everywhere[best].low and name != best]
    told = [f"- Highest average: **{best}**, {everywhere[best]} % of the teacher's."]
    if level:
        told.append(f"- Their intervals meet with it, and they cannot be told from it by these: {', '.join(level)}.")
    return told


def beside_part(language: Language, beside: Sequence[Comparison]) -> list[str]:
    """Every recipe beside the plain triple loss, in points; of the suite the tasks that both were run on."""
    everything = lines(language)
    tasks = [t for t in (*language.tasks, *language.suite)
             if any(compared(beside, line.system, t) for line in everything)]  # fmt: skip
    rows = []
    for line in everything:
        found = [compared(beside, line.system, task) for task in tasks]
        if any(found):
            rows.append((f"`{line.recipe}`", "task" if line.on_task else "text", *map(points, found)))
    if not rows:
        return []
    columns = ("recipe", "on", *(f">{task.name}" for task in tasks))
    return [
        f"Beside `{BESIDE}`'s student, fine-tuned plainly: points more or less, **bold** where the 95 % interval "
        "leaves 0 out.",
        "",
        markdown(columns, rows),
        "",
    ]


def points(one: Comparison | None) -> str:
    """A difference in points with its interval."""
    if one is None:
        return "–"
    told = f"{signed(one.difference)}{within(one.low, one.high)}"
    return f"**{told}**" if one.low > 0 or one.high < 0 else told


def suite_part(report: Report) -> str:
    """The winner beside the teacher on every task of a suite, and their averages."""
    return "\n".join(["### The whole of GLUE, once", "", beside_teacher(WINNER, report), ""])


def longer_part(language: Language, report: Report) -> str:
    """What more steps have to give, beside the teacher of the same seed."""
    line = Line(LONGER, f"teacher by {LONGER}", f"{LONGER}-on", True)
    mean = average(line, language, report)
    told = [] if mean is None else [f"- On average {mean} % of the teacher's, over {mean.tasks} tasks."]
    return "\n".join(["### Four times the steps", "", beside_teacher(LONGER, report), *told, ""])


def beside_teacher(recipe: str, report: Report) -> str:
    """A recipe on tasks and the teacher, task by task; what the report notes of them."""
    system, rows = f"teacher by {recipe}", []
    for whole in report.scores:
        if whole.model != "teacher" or whole.metric not in (MACRO, *first_metrics(whole.task)):
            continue
        own = next(s for s in report.scores if (s.model, s.task, s.metric) == (system, whole.task, whole.metric))
        beside = next(
            c for c in report.comparisons if (c.model, c.task, c.metric) == (system, whole.task, whole.metric)
        )
        base = "" if whole.baseline is None else pct(whole.baseline)
        scores = [f"{pct(s.value)}{within(s.low, s.high)}" for s in (whole, own)]
        kept = "" if beside.plain is None else f"{pct(beside.plain)}{within(beside.plain_low, beside.plain_high)}"
        rows.append((whole.task, whole.metric, f"{whole.n:,}", base, *scores, kept))
    table = markdown(("task", "metric", ">n", ">baseline", ">teacher", f">`{recipe}`", ">kept"), rows)
    return "\n".join(["Seed 0, in %.", "", table, "", *(f"- {note}" for note in report.notes)])


def first_metrics(task: str) -> tuple[str, ...]:
    """The first metric of a task; none of a suite."""
    return (first_metric(task),) if task in task_names() else ()


def page(folder: Path = HERE, runs: Path = RUNS) -> str:
    """The page with its figures made anew; a ValueError where the markers are not there once each."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{figures(folder, runs)}\n{END}{after}"


def figures(folder: Path, runs: Path) -> str:
    """What stands between the markers."""
    parts = []
    for language in LANGUAGES:
        file, other = folder / f"{language.name}-report.json", folder / f"{language.name}-beside-{BESIDE}.json"
        report = Report.from_json(file.read_text(encoding="utf-8")) if file.is_file() else None
        beside = json.loads(other.read_text(encoding="utf-8")) if other.is_file() else []
        parts.append(language_part(language, report, [Comparison.model_validate(c) for c in beside], runs))
        narrow, longer, suite = (
            folder / f"{language.name}-{what}-report.json" for what in ("narrow", "longer", "suite")
        )
        if narrow.is_file():
            parts.append(narrow_part(language, Report.from_json(narrow.read_text(encoding="utf-8")), runs))
        if longer.is_file():
            parts.append(longer_part(language, Report.from_json(longer.read_text(encoding="utf-8"))))
        if suite.is_file():
            parts.append(suite_part(Report.from_json(suite.read_text(encoding="utf-8"))))
    return "\n".join(parts)


def main() -> int:
    fresh = page()
    stale = fresh != PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        return int(stale)
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
