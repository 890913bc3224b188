"""Runs the experiment: run.py SHARED WORK [--language fr] [--stage screen] [--only NAME…] [--most N] [--results DIR].

One job a core, each on one thread, in a process of its own; processes are forked from one that has imported what they
need, which is a fifth of a short job's time. A job whose result lies in `results/` is done, on whatever machine: commit
the results, and the next session goes on. SHARED: the folder with the data (../shared/data).
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiment import LANGUAGES, TRAINED_STEPS, Job, jobs
from running import CORES, run_all
from starts import prepare, tuned

HERE = Path(__file__).resolve().parent
FORKED = multiprocessing.get_context("forkserver")


def main(arguments: argparse.Namespace) -> int:
    work, results = arguments.work.resolve(), arguments.results.resolve()
    wanted = [job for job in jobs(tuple(arguments.language), tuple(arguments.stage))
              if not arguments.only or job.name in arguments.only]  # fmt: skip
    if arguments.task:
        wanted = [job for job in wanted if job.task.name in arguments.task]
    todo = [job for job in wanted if not (results / job.out).exists()][: arguments.most]
    left = f"{len(todo)} to do{estimate(results, len(todo))}"
    print(f"{len(wanted)} jobs, {len(wanted) - len(todo)} done or left out, {left}")
    if arguments.dry_run:
        return 0
    prepare(arguments.shared.resolve(), work, arguments.language)
    failed = tuned(todo, work)
    failed += run_all(todo, work, asking(work, results, arguments.recover))
    print(f"{sum((results / job.out).exists() for job in wanted)} of {len(wanted)} results are there")
    print("".join(f"failed: {name}\n" for name in failed), end="")
    return int(bool(failed))


def estimate(results: Path, count: int) -> str:
    """How long that takes, by what was done so far."""
    seconds = [json.loads(p.read_text(encoding="utf-8"))["seconds"] for p in results.rglob("*.json")]
    if not seconds or not count:
        return ""
    hours = sum(seconds) / len(seconds) * count / CORES / 3600
    return f", about {hours:.1f} hours of {CORES} cores at {sum(seconds) / len(seconds):.0f} s a job"


def asking(work: Path, results: Path, recover: int | None) -> Callable[[Job, int], bool]:
    """Runs a job in a process of its own, which starts nothing anew that it had begun."""
    # The server of forks reads the environment alone: where `one.py` lies, and that no library starts a second thread.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    FORKED.set_forkserver_preload(["one"])

    def run(job: Job, threads: int) -> bool:
        if (results / job.out).exists():  # another call on this machine has made it since
            return True
        name = job.out.replace("/", "-").removesuffix(".json")
        teacher, student = job.after
        asked = {
            "language": job.language.name, "task": job.task.name, "data": job.task.data, "stage": job.stage,
            "name": job.name, "steps": job.steps, "recover": job.recover if recover is None else recover,
            "trained": TRAINED_STEPS if recover is None else recover, "seed": job.seed,
            "length": job.task.length, "batch": job.batch, "teacher": teacher, "student": student,
        }  # fmt: skip
        (work / "compressed").mkdir(exist_ok=True)
        process = FORKED.Process(target=logged, args=(asked, work, results / job.out, work / "logs" / f"{name}.log"))
        process.start()
        process.join()
        return process.exitcode == 0

    return run


def logged(asked: dict[str, Any], work: Path, result: Path, log: Path) -> None:
    """A job, in its process: what it says is in the log."""
    with log.open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), sys.stdout.fileno())
        os.dup2(stream.fileno(), sys.stderr.fileno())
    import one  # its imports take seconds, and only a job's process needs them

    one.main(asked, work, result)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--language", nargs="+", default=list(LANGUAGES), choices=LANGUAGES)
    parser.add_argument("--stage", nargs="+", default=["screen", "final"], choices=("screen", "final", "speed"))
    parser.add_argument("--task", nargs="+")
    parser.add_argument("--only", nargs="+", help="names of variants")
    parser.add_argument("--most", type=int, help="jobs of this call")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument(
        "--recover", type=int, help="steps, to try the scripts: such results are none of the experiment"
    )
    parser.add_argument("--dry-run", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main(parsed()))
