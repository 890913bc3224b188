"""What is kept of a run so that a report can be made without it: its figures, its recipe, its examples' scores.

No weights, no texts: some kilobytes a run, committed under `runs/`. A later session goes on from them.
"""

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

from jobs import LANGUAGES, LONGER, NARROW, WINNER

from affinage.data.task import load_task
from affinage.evaluation.example_scores import NAME

HERE = Path(__file__).parent
RUNS = HERE / "runs"
WORD = f"{NAME}.gz"
SECONDS = "seconds.json"
"""median time of an optimizer step, from the run's own log"""
BESIDE = "distilcamembert"
"""the system that the second report compares with: the plain triple loss"""


def is_kept(out: str, runs: Path = RUNS) -> bool:
    """Whether the scores of this run are."""
    return (runs / out / WORD).is_file()


def keep(folder: Path, out: str, runs: Path = RUNS) -> None:
    """Keep what reports read of a finished run; what is kept already stays, so that scores are of one training."""
    place = runs / out
    if place.exists() and not (place / SECONDS).exists():  # kept before they were
        keep_seconds(folder, place)
    if place.exists() or not (folder / "report.json").is_file():
        return
    aside = place.with_name(f"{place.name}.making")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if report["training"]:
        report["training"]["curves"] = {}
    (aside / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if (folder / "recipe.yaml").is_file():
        shutil.copy(folder / "recipe.yaml", aside)
    if (folder / NAME).is_file():
        packed = gzip.compress((folder / NAME).read_bytes(), mtime=0)  # the same bytes each time
        (aside / WORD).write_bytes(packed)
    keep_seconds(folder, aside)
    aside.rename(place)


def keep_seconds(folder: Path, place: Path) -> None:
    """Write the median time of a step beside what is kept; stages count by their steps.

    Evaluations and checkpoints fall between few of the logged points, and the median leaves these out. Runs go side by
    side, each on one thread: what matters is the ratio to a run of another recipe on the same task.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps, seconds = 0, 0.0
    for logs in {file.parent for file in (folder / "runs").rglob("events*")}:
        events = EventAccumulator(str(logs))
        events.Reload()
        points = events.Scalars("train/loss") if "train/loss" in events.Tags()["scalars"] else []
        each = [
            (later.wall_time - point.wall_time) / (later.step - point.step)
            for point, later in pairwise(points)
            if later.step > point.step
        ]
        if each:
            steps += points[-1].step
            seconds += median(each) * points[-1].step
    if steps:
        text = json.dumps({"step_seconds": round(seconds / steps, 4), "steps": steps})
        (place / SECONDS).write_text(text + "\n", encoding="utf-8")


def name_after_the_first(file: Path) -> None:
    """Reports call a system after the model it was tuned from: here the one before the task that came first."""
    found = json.loads(file.read_text(encoding="utf-8"))
    for model in found["models"]:
        for task in {task.after for language in LANGUAGES for task in language.tasks if task.after}:
            model["base"] = model["base"] and model["base"].removesuffix(f"-{task}-0")
    file.write_text(json.dumps(found), encoding="utf-8")


def report(language: str, work: Path, runs: Path = RUNS, to: Path = HERE) -> bool:
    """`affinage report` over all that is kept of a language, beside the teacher and beside the plain triple loss,
    written to `to`; False where the teacher has no score yet.
    """
    folder = work / f"report-{language}"
    shutil.rmtree(folder, ignore_errors=True)
    if not (runs / language).is_dir():
        return False
    shutil.copytree(runs / language, folder / "runs")
    for file in folder.glob(f"runs/*/{WORD}"):
        file.with_name(NAME).write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    for file in folder.glob("runs/*/report.json"):
        name_after_the_first(file)
    if not any(folder.glob(f"runs/teacher-*/{NAME}")):
        return False
    longer = apart(folder, language, "longer", lambda name: name.startswith(f"{LONGER}-"))
    narrow = apart(folder, language, "narrow", lambda name: name.startswith(NARROW.prefix))
    for reference in ("teacher", BESIDE):
        made = folder / f"beside-{reference}"
        if not reported(folder, ["runs"], reference, made) and reference == BESIDE:
            continue  # it has not run yet
        if reference == "teacher":
            for name in ("report.json", "report.md"):
                shutil.copy(made / name, to / f"{language}-{name}")
        else:
            found = json.loads((made / "report.json").read_text(encoding="utf-8"))["comparisons"]
            text = json.dumps(found, indent=1)
            (to / f"{language}-beside-{reference}.json").write_text(text + "\n", encoding="utf-8")
    suite = [f"runs/{name}" for name in of_the_suite(language)]
    for title, found in (("suite", suite), ("longer", longer), ("narrow", narrow)):
        if found and all((folder / run).is_dir() for run in found):
            reported(folder, found, "teacher", folder / f"report-{title}")
            for name in ("report.json", "report.md"):
                shutil.copy(folder / f"report-{title}" / name, to / f"{language}-{title}-{name}")
    return True


def apart(folder: Path, language: str, title: str, theirs: Callable[[str], bool]) -> list[str]:
    """Take runs that are no part of the common comparison out of the others, to `title`: these, and the teacher's of
    the same tasks and seeds, which the students learned from.
    """
    (folder / title).mkdir()
    found = sorted(run.name for run in (folder / "runs").iterdir() if theirs(run.name))
    for name in found:
        shutil.move(folder / "runs" / name, folder / title)
    tasks = [task.name for one in LANGUAGES if one.name == language for task in one.tasks]
    ends = {tuple(name.rsplit("-", 2)[1:]) for name in found}  # general students have no task
    scored = sorted((task, seed) for task in tasks for seed in map(str, range(9)) if (task, seed) in ends)
    beside = [f"runs/teacher-{task}-{seed}" for task, seed in scored]
    beside += [f"runs/baseline-{task}-0" for task in dict(scored)]
    return [*(f"{title}/{name}" for name in found), *beside] if scored else []


def of_the_suite(language: str) -> list[str]:
    """The first runs of teacher, baseline and winner on every task of the suite, where the language has one."""
    found = next(one for one in LANGUAGES if one.name == language)
    tasks = [task.name for task in (*found.tasks, *found.suite) if found.suite and load_task(task.name).suite]
    return [f"{name}-{task}-0" for name in ("teacher", f"{WINNER}-on", "baseline") for task in tasks]


def reported(folder: Path, runs: list[str], reference: str, out: Path) -> bool:
    """`affinage report` over some runs; whether it could be made."""
    program = Path(sys.executable).with_name("affinage")
    command = [program, "report", *runs, "--reference", reference, "--out", out.name]
    return not subprocess.run(command, cwd=folder, check=False, stdout=subprocess.DEVNULL).returncode
