"""The steps of the demo, each of which makes one folder and is skipped where that stands."""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from affinage.data.examples import read_examples
from affinage.data.features import texts_of
from affinage.data.readers import find_parts
from affinage.data.task import load_task
from affinage.errors import InputError
from affinage.models.checkpoint import load_masked_lm, load_tokenizer
from affinage.models.shipped import located
from affinage.workflows.baseline import baseline
from affinage.workflows.benchmark import LENGTHS, benchmark
from affinage.workflows.demo_plan import Plan
from affinage.workflows.distil import distil
from affinage.workflows.finetune import finetune
from affinage.workflows.pretrain import pretrain

log = logging.getLogger(__name__)

SYSTEMS = ("teacher", "student")
_SHORTEST_CORPUS = 2_000
"""characters"""

Step = tuple[str, str, Callable[[Path], object]]
"""Folder to make, what a person is told, and what makes it: whole, or not at all."""


@dataclass(frozen=True)
class Steps:
    """What a demo does, from the teacher to the benchmark."""

    work: Path
    teacher: str
    start: str | None
    """the student to go on with; None: start from the teacher's layers"""
    sets: Mapping[str, Path]
    """task -> folder of its parts"""
    corpus: Path
    plan: Plan
    longest: int
    """tokens that the teacher takes"""
    seed: int
    quiet: bool

    def run(self) -> None:
        """Do what is not done yet."""
        steps = self.all()
        for number, (name, what, make) in enumerate(steps, 1):
            to, before = self.work / name, ""
            if to.is_dir():
                before = " (done before)"
            log.info("%d/%d %s%s", number, len(steps), what, before)
            if not before:
                to.parent.mkdir(exist_ok=True)
                make(to)

    def all(self) -> list[Step]:
        """Every step, in order."""
        steps: list[Step] = [
            ("teacher", "a vocabulary head for the teacher", self._train_head)
            if self.plan.head_steps
            else ("teacher", "copying the teacher", self._copy_teacher),
            ("student", "distilling the student", self._distil),
        ]
        for task in self.sets:
            for system in SYSTEMS:
                name, what = f"tasks/{system}-{task}", f"fine-tuning the {system}: {task}"
                steps.append((name, what, partial(self._tune, system, task)))
            steps.append((f"tasks/baseline-{task}", f"without an encoder: {task}", partial(self._baseline, task)))
        return [*steps, ("benchmark", "timing both", self._time)]

    def _copy_teacher(self, to: Path) -> None:
        aside = to.with_name("teacher.tmp")
        shutil.rmtree(aside, ignore_errors=True)
        if Path(located(self.teacher)).is_dir():  # with its report and card
            shutil.copytree(located(self.teacher), aside)
        else:
            load_masked_lm(self.teacher)[0].save_pretrained(aside)
            load_tokenizer(self.teacher).save_pretrained(aside)
        aside.rename(to)

    def _train_head(self, to: Path) -> None:
        settings = self.plan.head_settings(longest=self.longest, seed=self.seed)
        pretrain([self.corpus], out=to, recipe="mlm-head", init_from=self.teacher, overrides=settings, quiet=self.quiet)

    def _distil(self, to: Path) -> None:
        settings = self.plan.distil_settings(longest=self.longest, seed=self.seed, fresh=self.start is None)
        teacher = self.work / "teacher"
        distil(teacher, corpus=[self.corpus], out=to, init_from=self.start, overrides=settings, quiet=self.quiet)

    def _tune(self, system: str, task: str, to: Path) -> None:
        settings = self.plan.tune_settings(task, longest=self.longest, seed=self.seed)
        finetune(self.work / system, task=task, data=self.sets[task], out=to, overrides=settings, quiet=self.quiet)

    def _baseline(self, task: str, to: Path) -> None:
        settings = self.plan.tune_settings(task, longest=self.longest, seed=self.seed)
        del settings["training.learning_rate"]  # a head alone has a rate of its own
        baseline(self.work / "teacher", task=task, data=self.sets[task], out=to, overrides=settings, quiet=self.quiet)

    def _time(self, to: Path) -> None:
        lengths = [length for length in LENGTHS if length <= self.longest]
        models = [self.work / system for system in SYSTEMS]
        benchmark(models, lengths=lengths, seconds=self.plan.seconds_per_cell, out=to, quiet=self.quiet)


def corpus_of(sets: Mapping[str, Path], given: Path, *, aside: Path) -> Path:
    """The raw text to distil on: the folder `given` if there is one, else the training texts, written to `aside`.

    Raises: InputError where these are too short to learn from.
    """
    if given.is_dir():
        return given
    texts: dict[str, None] = {}
    for task, folder in sets.items():
        for example in read_examples(load_task(task), find_parts(folder)["train"]):
            texts.update(dict.fromkeys(" ".join(text.split()) for text in texts_of(example)))
    if sum(map(len, texts)) < _SHORTEST_CORPUS:
        raise InputError(
            f"the training texts hold fewer than {_SHORTEST_CORPUS:,} characters, too few to distil on; put raw text "
            f"into {given}/, one paragraph a line"
        )
    aside.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return aside
