"""How `Language.rate` is chosen: the teacher fine-tuned at several rates, seed 0, scored on the valid parts alone.

`tune.py SHARED WORK LANGUAGE [TASK…]`: whole schedules, as the comparison runs them. Where the data has no valid part
it is the tenth of the training rows that chooses checkpoints; test parts (GLUE's dev) are not looked at. What is
done stays. Writes LANGUAGE-tuning.json beside this file.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from jobs import LANGUAGES, Budget, Job, Language, jobs, tuned
from kept import HERE
from prepare import prepare
from running import run_all, with_affinage, with_needs

from affinage.report.report import Report

RATES = ("5e-5", "1e-4", "2e-4")
SPLITS = ("valid", "held-out train", "part of dev")


def main(shared: Path, work: Path, name: str, names: list[str]) -> int:
    language = next(language for language in LANGUAGES if language.name == name)
    tasks = [task for task in language.tasks if not names or task.name in names]
    runs = {(task.name, rate): trial(language, rate, task.name) for task in tasks for rate in RATES}
    prepare(shared, work, [name])
    todo = with_needs(runs.values(), [*jobs(language, Budget()), *runs.values()], work)
    failed = run_all(todo, work, with_affinage(work, work / "kept-tuning"))
    found: dict[str, dict[str, float]] = {}
    for (task, rate), job in runs.items():
        if job.out not in failed:
            found.setdefault(task, {})[rate] = round(valid_score(work / job.out), 4)
    means = {rate: sum(of[rate] for of in found.values()) / len(found)
             for rate in RATES if all(rate in of for of in found.values())}  # fmt: skip
    best = max(means, key=lambda rate: means[rate], default=None)
    told = {"scores": found, "means": {rate: round(mean, 4) for rate, mean in means.items()}, "best": best}
    (HERE / f"{name}-tuning.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    return int(bool(failed))


def trial(language: Language, rate: str, name: str) -> Job:
    """The teacher on a task at a rate."""
    at = replace(language, rate=rate)
    task = next(task for task in at.tasks if task.name == name)
    return tuned(at, task, 0, at.teacher, f"{at.name}/tune-{rate}-{name}-0")


def valid_score(folder: Path) -> float:
    """The first metric on the valid part."""
    report = Report.from_json((folder / "report.json").read_text(encoding="utf-8"))
    return next(score.value for score in report.scores if score.split in SPLITS)


if __name__ == "__main__":
    shared, work, name, *names = sys.argv[1:]
    sys.exit(main(Path(shared).resolve(), Path(work).resolve(), name, names))
