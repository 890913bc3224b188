"""Runs the comparison of recipes: run.py SHARED WORK [LANGUAGE…]. One job a core, each on one thread.

What is done stays, and what was stopped goes on: run it again. SHARED: the folder with the data (../shared/data).
"""

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from jobs import AUGMENTED, LANGUAGES, Job, jobs

from affinage.recipe import recipe_text

HERE = Path(__file__).parent
SLICES = {"sst2": 8000, "squad": 6000}
"""training rows that are taken, the first ones of a fixed shuffle"""


def main(shared: Path, work: Path, names: Iterable[str]) -> int:
    work.mkdir(parents=True, exist_ok=True)
    prepare(shared, work)
    wanted = [language for language in LANGUAGES if language.name in names]
    todo = [job for language in wanted for job in jobs(language)]
    failed = run_all(todo, work)
    for language in wanted:
        report(language.name, work)
    print(f"{len(todo) - len(failed)} of {len(todo)} runs are there" + "".join(f"\nfailed: {out}" for out in failed))
    return int(bool(failed))


def prepare(shared: Path, work: Path) -> None:
    """Links to the data, slices of what is large, and the English teacher's vocabulary head."""
    links = {
        **{f"en/{task}": f"en/glue/{task}" for task in ("cola", "mrpc", "stsb", "rte")},
        "fr/reviews": "fr/sentiment/reviews",
        "fr/wikineural": "fr/ner/wikineural",
        "fr/piaf": "fr/qa/piaf",
    }
    for language in ("en", "fr"):
        (work / language).mkdir(exist_ok=True)
    for ours, theirs in links.items():
        if not (work / ours).exists():
            (work / ours).symlink_to(shared / theirs)
    for task, source in (("sst2", "en/glue/sst2"), ("squad", "en/squad/v1.1")):
        sliced(shared / source, work / "en" / task, SLICES[task])
    text = recipe_text("tinybert-6").replace("name: tinybert-6", f"name: {Path(AUGMENTED).stem}", 1)
    (work / AUGMENTED).write_text(text, encoding="utf-8")
    if not (work / "en/corpus").exists():
        texts = [p for p in (shared / "en/corpus").glob("*.txt.gz") if not p.name.startswith("wikitext2")]
        (work / "en/corpus").mkdir()
        for text in texts:
            (work / "en/corpus" / text.name).symlink_to(text)
    if not (work / "fr/corpus").exists():
        script = HERE.parent / "teacher" / "corpus.py"
        subprocess.run([sys.executable, str(script), str(shared / "fr"), str(work / "fr/corpus")], check=True)
    if not (work / "en/teacher").exists():
        script = HERE.parent / "english" / "teacher.sh"
        subprocess.run(["sh", str(script), str(work / "en/corpus"), str(work / "en/made")], check=True)
        (work / "en/teacher").symlink_to(work / "en/made/teacher")


def sliced(source: Path, folder: Path, rows: int) -> None:
    """The first rows of a shuffle of the training part; the dev part whole."""
    if folder.exists():
        return
    import random

    aside = folder.with_name(f"{folder.name}.making")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    with gzip.open(source / "train.jsonl.gz", "rt", encoding="utf-8") as stream:
        lines = stream.read().splitlines()
    random.Random(0).shuffle(lines)
    with gzip.open(aside / "train.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.write("\n".join(lines[:rows]) + "\n")
    shutil.copy(source / "dev.jsonl.gz", aside)
    aside.rename(folder)


def run_all(todo: list[Job], work: Path) -> list[str]:
    """Every job when what it needs is there; the outs of those that failed, or whose needs did."""
    (work / "logs").mkdir(exist_ok=True)
    waiting, running, failed = list(todo), dict[Future[bool], Job](), list[str]()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while waiting or running:
            for job in list(waiting):
                if any(need in failed for need in job.after):
                    waiting.remove(job)
                    failed.append(job.out)
                elif all((work / need).exists() for need in job.after) and len(running) < (os.cpu_count() or 1):
                    waiting.remove(job)
                    running[pool.submit(run, job, work)] = job
            if not running:
                failed += [job.out for job in waiting]
                break
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(done)
                if not done.result():
                    failed.append(job.out)
    return failed


def run(job: Job, work: Path) -> bool:
    """Whether its folder is there in the end."""
    if (work / job.out).exists():
        return True
    one = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    log = work / "logs" / f"{job.out.replace('/', '-')}.log"
    with log.open("w", encoding="utf-8") as stream:
        command = ["affinage", *job.arguments, "--out", job.out, "--quiet"]
        done = subprocess.run(command, cwd=work, env=one, stdout=stream, stderr=stream, check=False)
    return done.returncode == 0


def report(language: str, work: Path) -> None:
    """`affinage report` over all that was scored, copied beside this file."""
    folder = work / language
    found = [p.parent.name for p in sorted(folder.glob("*/examples.json"))]
    if not found:
        return
    shutil.rmtree(folder / "report", ignore_errors=True)
    command = ["affinage", "report", *found, "--reference", "teacher", "--out", "report"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    for name in ("report.json", "report.md"):
        shutil.copy(folder / "report" / name, HERE / f"{language}-{name}")


if __name__ == "__main__":
    shared, work, *names = sys.argv[1:]
    sys.exit(main(Path(shared).resolve(), Path(work).resolve(), names or [language.name for language in LANGUAGES]))
