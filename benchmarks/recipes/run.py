"""Runs the comparison of recipes, one job a core, each on one thread: `run.py SHARED WORK --help`.

What is done stays, and what was stopped goes on: run it again. SHARED: the folder with the data (../shared/data).
"""

import argparse
import sys
import time
from pathlib import Path

from jobs import LANGUAGES, Budget, Job, jobs, shortened
from kept import RUNS, is_kept, keep, report
from prepare import prepare
from running import run_all, say, with_affinage, with_needs

TRIAL = 2
"""steps of every run in a trial"""


def main() -> int:
    given = arguments()
    work, wanted = given.work.resolve(), [language for language in LANGUAGES if language.name in given.languages]
    budget = Budget(given.general_steps, given.head_steps, given.together_steps)
    every = [job for language in wanted for job in jobs(language, budget, suite=given.glue)]
    runs = work / "kept" if given.trial else RUNS
    asked = [job for job in every if job.scores and chosen(job, given) and not is_kept(job.out, runs)]
    todo = with_needs(sorted(asked, key=lambda job: int(job.out.rsplit("-", 1)[1])), every, work)
    if given.trial:
        todo = [shortened(job, TRIAL) for job in todo]
    if given.list:
        sys.stdout.write("".join(f"affinage {' '.join(job.arguments)} --out {job.out}\n" for job in todo))
        return 0
    prepare(given.shared.resolve(), work, given.languages, trial=given.trial)
    failed = run_all(todo, work, with_affinage(work, runs), until=time.time() + 3600 * given.hours)
    for job in every:
        if (work / job.out).exists():  # what an earlier version kept less of
            keep(work / job.out, job.out, runs)
    for language in wanted:
        report(language.name, work, runs, *([work] if given.trial else []))
    for out in failed:
        say(f"failed: {out}; see {work / 'logs'}")
    return int(bool(failed))


def arguments() -> argparse.Namespace:
    known = [language.name for language in LANGUAGES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="the folder with the data")
    parser.add_argument("work", type=Path, help="where runs are made; weights stay there")
    parser.add_argument("languages", nargs="*", default=known, metavar="LANGUAGE", help=f"default: {' '.join(known)}")
    parser.add_argument("--seeds", type=int, default=99, help="how many at most")
    parser.add_argument("--tasks", type=words, help="only these, separated by commas")
    parser.add_argument("--recipes", type=words, help="only these, and the teacher and the baseline")
    parser.add_argument("--glue", action="store_true", help="also the rest of GLUE, with the teacher and the winner")
    parser.add_argument("--hours", type=float, default=1e6, help="after which no further run is started")
    parser.add_argument("--general-steps", type=int, default=Budget.general, help="of students on text (%(default)s)")
    parser.add_argument("--head-steps", type=int, default=Budget.head, help="of the English head (%(default)s)")
    parser.add_argument("--together-steps", type=int, default=Budget.together, help="of both together (%(default)s)")
    parser.add_argument("--list", action="store_true", help="say what would be run, in this order, and stop")
    parser.add_argument("--trial", action="store_true", help="whether all start: little data, two steps")
    return parser.parse_args()


def words(text: str) -> list[str]:
    return text.split(",")


def chosen(job: Job, given: argparse.Namespace) -> bool:
    """Whether the options ask for a job: `en/RECIPE-[on-]TASK-SEED`."""
    name, task, seed = job.out.split("/")[1].rsplit("-", 2)
    recipe = name.removesuffix("-on")
    wanted = given.recipes is None or recipe in (*given.recipes, "teacher", "baseline")
    return int(seed) < given.seeds and (given.tasks is None or task in given.tasks) and wanted


if __name__ == "__main__":
    sys.exit(main())
