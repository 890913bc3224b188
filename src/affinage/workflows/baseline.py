"""`affinage baseline`: what a task's score is without an encoder, from which a model's own score is measured."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from transformers import TrainerCallback

from affinage.data.examples import (
    Example,
    MultiLabelExample,
    PairExample,
    RegressionExample,
    SpanExample,
    TextExample,
    TokenExample,
)
from affinage.evaluation.evaluator import Prediction, references, score_predictions
from affinage.evaluation.example_scores import ExampleScores, write_example_scores
from affinage.evaluation.footprint import model_entry
from affinage.models.frozen_embeddings import load_frozen_embeddings
from affinage.report.report import Report
from affinage.training.processes import processes
from affinage.training.run_folder import refuse_existing
from affinage.workflows.task_run import read_task_run, train_task_model

log = logging.getLogger(__name__)

HEAD_LEARNING_RATE = "3e-3"
"""of a head alone; the rate that a recipe names is one that a whole model bears"""


def baseline(
    model: str | Path,
    *,
    task: str,
    data: str | Path,
    out: str | Path,
    recipe: str | Path = "finetune",
    overrides: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    command: str | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Report:
    """Score two answers that need no encoder of `model`, and write report and rows of the higher one to `out`.

    "majority": always the commonest training label (or set of labels), the mean number, all `O`, or no answer.
    "frozen embeddings": the head that fine-tuning gives `model`, trained by the same recipe on the embeddings alone, at
    `HEAD_LEARNING_RATE` unless `overrides` say otherwise. Both on the test part, or the valid part where there is none.
    No model is kept.

    Raises: as `finetune`.
    """
    refuse_existing(out, overwrite=overwrite)
    settings = {"training.learning_rate": HEAD_LEARNING_RATE, **(overrides or {})}
    run = read_task_run(model, task=task, data=data, recipe=recipe, overrides=settings, columns=columns)
    kind, labels = run.task.kind, run.data.labels
    seed, dropout = run.training.seed, run.recipe.student.dropout
    network = load_frozen_embeddings(model, kind, labels=labels, seed=seed, dropout=dropout)
    log.info("only the head is trained, on frozen embeddings, at a learning rate of %g", run.training.learning_rate)
    folder = run.open_folder(out, verb="baseline", overwrite=overwrite)
    best, trained = train_task_model(run, network, folder, title="baseline", callbacks=callbacks, quiet=quiet)

    final = load_frozen_embeddings(best, kind)
    final.to(network.device)  # type: ignore[arg-type]
    if run.task.no_answer:
        run.tune_no_answer_(final)
    parts = run.data
    split, examples = (parts.test_split, parts.test) if parts.test else (parts.valid_split, parts.valid)
    learned = run.evaluate(final, examples, name="frozen embeddings", split=split)
    simple = majority(run.data.train, examples, labels)
    scores, rows = score_predictions(run.task, simple, references(examples), name="majority", split=split)
    if learned.scores[0].value > scores[0].value:
        rows = learned.examples
    report = Report(
        command="baseline",
        models=(model_entry(final, name="frozen embeddings", path=out, base=model),),
        # `baseline` of a score is what it must be measured from; these are themselves that.
        scores=tuple(score.model_copy(update={"baseline": None}) for score in (*scores, *learned.scores)),
        training=trained,
        notes=run.data.notes,
        provenance=run.provenance(command or f"affinage baseline {model} --task {task} --data {data} --out {out}"),
    )

    def write(aside: Path) -> None:
        (aside / "report.json").write_text(report.to_json(), encoding="utf-8")
        write_example_scores(aside, ExampleScores(run.task.name, {split: rows}))

    if processes().is_main_process:
        folder.finish(write)
    return report


def majority(train: Sequence[Example], examples: Sequence[Example], labels: Sequence[str]) -> list[Prediction]:
    """The same answer for each of `examples`: the commonest label, or set of labels, of `train`; its mean number; `O`
    for every word; or no answer.

    Of labels equally common it is the first one.
    """
    counts = Counter(e.label for e in train if isinstance(e, TextExample | PairExample))
    commonest = max(labels, key=lambda label: counts[label], default="")
    sets = Counter(e.labels for e in train if isinstance(e, MultiLabelExample))
    commonest_set = max(sorted(sets), key=lambda chosen: sets[chosen], default=())
    values = [e.value for e in train if isinstance(e, RegressionExample)]
    predicted: list[Prediction] = []
    for example in examples:
        match example:
            case TextExample() | PairExample():
                predicted.append(commonest)
            case MultiLabelExample():
                predicted.append(commonest_set)
            case RegressionExample():
                predicted.append(fmean(values))
            case TokenExample():
                predicted.append(("O",) * len(example.words))
            case SpanExample():
                predicted.append("")
    return predicted
