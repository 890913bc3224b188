"""What a student scores beside its teacher, on every part, and how much of the teacher's score it keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from affinage.evaluation.evaluator import references, score_predictions
from affinage.evaluation.example_scores import PartScores
from affinage.report.report import Comparison, Score
from affinage.workflows.baseline import majority
from affinage.workflows.compare import compare
from affinage.workflows.found import Scored
from affinage.workflows.task_run import TaskRun


@dataclass(frozen=True)
class Beside:
    """Scores of the student, then of its teachers, part by part; comparisons on the last part."""

    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    examples: dict[str, PartScores]
    """the last part -> what each of its examples adds to the student's scores"""
    teachers: tuple[str, ...]
    """as they are called in the scores"""


def beside_teacher(
    run: TaskRun,
    student: PreTrainedModel,
    teachers: Sequence[PreTrainedModel],
    *,
    teachers_run: TaskRun | None = None,
) -> Beside:
    """Score them all on the valid part, and on the test part if there is one.

    `teachers_run`: the rows as the teachers' tokenizer cuts them, where that is not the student's.
    """
    names = ("teacher", *(f"teacher_{i}" for i in range(2, len(teachers) + 1)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    scores: list[Score] = []
    comparisons: tuple[Comparison, ...] = ()
    examples: dict[str, PartScores] = {}
    for split, part in ((run.data.valid_split, run.data.valid), (run.data.test_split, run.data.test)):
        if not part:
            continue
        simple = majority(run.data.train, part, run.data.labels)
        simple_scores, rows = score_predictions(run.task, simple, references(part), name="majority", split=split)
        baselines = {score.metric: score.value for score in simple_scores}
        found: dict[str, tuple[Scored, ...]] = {}
        for name, model in zip(("student", *names), (student, *teachers), strict=True):
            cut = run if name == "student" or teachers_run is None else teachers_run
            result = cut.evaluate(model.to(device), part, name=name, split=split)  # type: ignore[arg-type]
            # One baseline on the page, that of the comparisons: what the training rows say is commonest.
            scores += [
                score if score.baseline is None else score.model_copy(update={"baseline": baselines[score.metric]})
                for score in result.scores
            ]
            found[name] = (_scored(run, name, split, result.examples, None),)
        floor = {"majority": (_scored(run, "majority", split, rows, "majority"),)}
        comparisons = compare(found, floor, reference="teacher").comparisons
        examples = {split: found["student"][0].examples}
    return Beside(tuple(scores), comparisons, examples, names)


def _scored(run: TaskRun, name: str, split: str, examples: PartScores, kind: str | None) -> Scored:
    return Scored(
        folder=Path(name),
        system=name,
        task=run.task.name,
        part=split,
        seed=run.training.seed,
        examples=examples,
        majority={},
        kind=kind,
    )
