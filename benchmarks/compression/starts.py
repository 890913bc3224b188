"""What the experiment starts from: data and tuned models, laid out and trained as in the comparison of recipes."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from experiment import RECIPES, Job  # it puts the comparison's folder on the path
from jobs import ALONE, Budget, distilled, jobs, settings, starts
from jobs import tuned as finetuned
from prepare import SLICES, some
from prepare import prepare as laid_out
from running import run_all, with_affinage, with_needs

from affinage.workflows.unanswerable import unanswerable

STUDENT_RATE = "5e-4"
"""of the shipped student; 8e-4, the best of benchmarks/shipped/tuning on valid, collapsed on another processor (LOG)"""


def prepare(shared: Path, work: Path, languages: Iterable[str]) -> None:
    """As the comparison of recipes does; questions without an answer for SQuAD 2.0, which has no training part."""
    laid_out(shared, work, languages)
    if "en" in languages and not (work / "en/squad2").exists():
        dev = work / "en/squad2-dev.jsonl.gz"
        some(shared / "en/squad/v2.0/dev.jsonl.gz", dev, SLICES["squad"][1])
        unanswerable(work / "en/squad", out=work / "en/squad2", dev=dev)


def tuned(todo: list[Job], work: Path) -> list[str]:
    """The tuned teachers and students that the jobs start from, as the comparison of recipes makes them."""
    wanted = []
    for job in {(job.language.name, job.task.name, job.seed): job for job in todo}.values():
        language = next(one for one in RECIPES if one.name == job.language.name)
        task, teacher = job.task, job.language.teacher.format(task=job.task.name, seed=job.seed)
        wanted.append(finetuned(language, task, job.seed, starts(language, task, language.teacher), teacher))
        out = job.language.student.format(task=task.name, seed=job.seed)
        if language.name == "en":  # where a higher rate of the inner layers keeps more of SQuAD (docs/choosing.md)
            student = distilled(language, task, job.seed, ALONE)
            rate = settings(f"stages.0.training.learning_rate={language.inner_rate}")
            wanted.append(replace(student, out=out, arguments=(*student.arguments, *rate)))
        else:
            faster = replace(language, rate=STUDENT_RATE)
            wanted.append(finetuned(faster, task, job.seed, "shipped:student", out))
    every = [job for language in RECIPES for job in jobs(language, Budget())]
    return run_all(with_needs(wanted, every, work), work, with_affinage(work, work / "kept-tuned"))
