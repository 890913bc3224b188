"""Runs jobs of affinage when what they need is there: one a core, each on one thread."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

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


def run_all(todo: list[Job], work: Path, runs: Path, *, until: float) -> list[str]:
    """Every job when what it needs is there; the outs of those that failed, or whose needs did."""
    (work / "logs").mkdir(exist_ok=True)
    waiting, running, failed = list(todo), dict[Future[bool], Job](), list[str]()
    with ThreadPoolExecutor(CORES) as pool:
        while waiting or running:
            lost = [job for job in waiting if any(need in failed for need in job.after)]
            waiting = [job for job in waiting if job not in lost]
            failed += [job.out for job in lost]
            ready = [job for job in waiting if all((work / need).exists() for need in job.after)]
            if time.time() > until:
                ready = waiting = []
            for job in ready[: CORES - len(running)]:
                waiting.remove(job)
                alone = len(ready) == 1 and not running  # then others wait for it
                running[pool.submit(run, job, work, runs, threads=CORES if alone else 1)] = job
            if not running:
                failed += [job.out for job in waiting] if not lost else []
                if not lost:
                    break
                continue
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(done)
                if not done.result():
                    failed.append(job.out)
    return failed


def run(job: Job, work: Path, runs: Path, *, threads: int) -> bool:
    """Whether its folder is there in the end; what reports need of it is kept."""
    began, folder = time.time(), work / job.out
    if not folder.exists():
        few = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        log = work / "logs" / f"{job.out.replace('/', '-')}.log"
        with log.open("w", encoding="utf-8") as stream:
            command = [str(Path(sys.executable).with_name("affinage")), *job.arguments, "--out", job.out, "--quiet"]
            done = subprocess.run(
                command, cwd=work, env={**os.environ, **few}, stdout=stream, stderr=stream, check=False
            )
        say(f"{job.out}: {time.time() - began:.0f} s" + (f", exit code {done.returncode}" if done.returncode else ""))
        if done.returncode:
            return False
    keep(folder, job.out, runs)
    return True


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
