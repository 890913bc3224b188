"""Runs jobs when what they need is there: one a core, each on one thread."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol, TypeVar

from jobs import Job
from kept import keep

CORES = int(os.environ.get("CORES", 0)) or os.cpu_count() or 1
"""or as many as the variable CORES says"""


def with_needs(asked: Iterable[Job], every: Iterable[Job], work: Path) -> list[Job]:
    """The jobs that were asked for, each after those it needs whose folders are not there."""
    known, found = {job.out: job for job in every}, dict[str, Job]()

    def put(job: Job) -> None:
        for need in job.after:
            if need in known and not (work / need).exists():
                put(known[need])
        found.setdefault(job.out, job)

    for job in asked:
        put(job)
    return list(found.values())


class Runnable(Protocol):
    """What is run: the comparison's jobs, the experiment of compression's."""

    @property
    def out(self) -> str: ...

    @property
    def after(self) -> tuple[str, ...]:
        """Folders that have to be there."""


R = TypeVar("R", bound=Runnable)


def run_all(todo: Sequence[R], work: Path, run: Callable[[R, int], bool], *, until: float = math.inf) -> list[str]:
    """`run` of every job and a number of threads, when what it needs is there: whether it ended well.

    Returns the outs of those that did not, or whose needs did not.
    """
    (work / "logs").mkdir(exist_ok=True)
    waiting, running, failed = list(todo), dict[Future[bool], R](), list[str]()
    began, ended = time.perf_counter(), 0
    with ThreadPoolExecutor(CORES) as pool:
        while waiting or running:
            ready = [job for job in waiting if all((work / need).exists() for need in job.after)]
            if time.time() > until:
                ready = waiting = []
            for job in ready[: CORES - len(running)]:
                waiting.remove(job)
                alone = len(ready) == 1 and not running  # then others wait for it
                running[pool.submit(run, job, CORES if alone else 1)] = job
            if not running:  # what the rest needs failed
                return [*failed, *(job.out for job in waiting)]
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                job, ended = running.pop(done), ended + 1
                failed += [] if done.result() else [job.out]
                left = (time.perf_counter() - began) / ended * (len(waiting) + len(running)) / 60
                told = "" if done.result() else " FAILED, see its log"
                say(f"{ended} of {len(todo)}: {job.out}{told}; {left:.0f} minutes left")
    return failed


def with_affinage(work: Path, runs: Path) -> Callable[[Job, int], bool]:
    """Runs a job of the comparison: its folder is there in the end, and what reports need of it is kept in `runs`."""

    def run(job: Job, threads: int) -> bool:
        command = [str(Path(sys.executable).with_name("affinage")), *job.arguments, "--out", job.out, "--quiet"]
        if (work / job.out).exists() or ended_well(command, work, job.out.replace("/", "-"), threads):
            keep(work / job.out, job.out, runs)
            return True
        return False

    return run


def ended_well(command: Sequence[str], work: Path, name: str, threads: int) -> bool:
    """Whether a command run in `work` did; what it says is in the logs."""
    few = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    with (work / "logs" / f"{name}.log").open("w", encoding="utf-8") as stream:
        done = subprocess.run(command, cwd=work, env={**os.environ, **few}, stdout=stream, stderr=stream, check=False)
    return done.returncode == 0


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
