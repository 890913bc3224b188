"""Runs the experiment: run.py SHARED WORK [--language fr] [--stage screen] [--only NAME…] [--most N] [--results DIR].

One job a core, each on one thread. A job whose result lies in `results/` is done, on whatever machine: commit the
results, and the next session goes on. SHARED: the folder with the data (../shared/data).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from experiment import LANGUAGES, TRAINED_STEPS, Job, jobs
from starts import missing, prepare, tuned

HERE = Path(__file__).parent


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
    failed += run_all([job for job in todo if not missing(job, work)], work, results, recover=arguments.recover)
    print(f"{sum((results / job.out).exists() for job in wanted)} of {len(wanted)} results are there")
    print("".join(f"failed: {name}\n" for name in failed), end="")
    return int(bool(failed))


def estimate(results: Path, count: int) -> str:
    """How long that takes, by what was done so far."""
    seconds = [json.loads(p.read_text(encoding="utf-8"))["seconds"] for p in results.rglob("*.json")]
    if not seconds or not count:
        return ""
    hours = sum(seconds) / len(seconds) * count / (os.cpu_count() or 1) / 3600
    return f", about {hours:.1f} hours of {os.cpu_count()} cores at {sum(seconds) / len(seconds):.0f} s a job"


def run_all(todo: list[Job], work: Path, results: Path, *, recover: int | None) -> list[str]:
    """Every job, as many at a time as there are cores."""
    failed, running = [], dict[Future[bool], Job]()
    waiting, began, done = list(todo), time.perf_counter(), 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                job = waiting.pop(0)
                running[pool.submit(run, job, work, results, recover)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, done = running.pop(future), done + 1
                failed += [] if future.result() else [job.out]
                left = (time.perf_counter() - began) / done * (len(todo) - done) / 60
                print(
                    f"{done} of {len(todo)}: {job.out}{'' if future.result() else ' FAILED'}; {left:.0f} minutes left"
                )
    return failed


def run(job: Job, work: Path, results: Path, recover: int | None) -> bool:
    """In a process of its own, which starts nothing anew that it had begun."""
    name = job.out.replace("/", "-").removesuffix(".json")
    folders = {"teacher": job.language.teacher, "student": job.language.student}
    asked = {
        "language": job.language.name, "task": job.task.name, "data": job.task.data, "stage": job.stage,
        "name": job.name, "steps": job.steps, "recover": job.recover if recover is None else recover,
        "trained": TRAINED_STEPS if recover is None else recover, "seed": job.seed,
        "length": job.task.length, "batch": job.task.batch,
        **{key: folder.format(task=job.task.name, seed=job.seed) for key, folder in folders.items()},
    }  # fmt: skip
    (work / "asked").mkdir(exist_ok=True)
    (work / "logs").mkdir(exist_ok=True)
    (work / "compressed").mkdir(exist_ok=True)
    path = work / "asked" / f"{name}.json"
    path.write_text(json.dumps(asked), encoding="utf-8")
    return python([str(HERE / "one.py"), str(path), str(work), str(results / job.out)], work, name)


def python(arguments: list[str], work: Path, name: str) -> bool:
    """Whether it ended well; what it said is in the logs."""
    one = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    (work / "logs").mkdir(exist_ok=True)
    with (work / "logs" / f"{name}.log").open("w", encoding="utf-8") as stream:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=work, env=one, stdout=stream, stderr=stream, check=False
        )
    return done.returncode == 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--language", nargs="+", default=list(LANGUAGES), choices=LANGUAGES)
    parser.add_argument("--stage", nargs="+", default=["screen", "final"], choices=("screen", "final"))
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
