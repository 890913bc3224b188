"""`affinage finetune`: a pre-trained model and labelled data -> a task model, its best checkpoint scored."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import TrainerCallback

from affinage.evaluation.example_scores import ExampleScores, PartScores, write_example_scores
from affinage.evaluation.footprint import model_entry
from affinage.models.checkpoint import load_task_model
from affinage.report.report import Report, Score
from affinage.training.model_folder import write_model_folder
from affinage.training.processes import processes
from affinage.training.run_folder import refuse_existing
from affinage.workflows.task_run import read_task_run, train_task_model

log = logging.getLogger(__name__)


def finetune(
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
    """Fine-tune `model` (a folder or hub name) on the labelled `data` and write it to the folder `out`.

    `data`: a folder with train.*, and valid.* and test.* if there are (see `data.readers`), one file, or a hub name.
    The checkpoint with the best score on the valid part (or on a tenth of the training rows, held out) is kept; it is
    scored on that part, and on the test part if there is one. `columns`: field -> column of the data.

    Raises: InputError or DataError before any long work for whatever cannot be used; KeyboardInterrupt after Ctrl-C,
    with a checkpoint written that the same call takes up.
    """
    refuse_existing(out, overwrite=overwrite)
    run = read_task_run(model, task=task, data=data, recipe=recipe, overrides=overrides, columns=columns)
    kind, name = run.task.kind, Path(out).name
    network = load_task_model(
        model, kind, labels=run.data.labels, seed=run.training.seed, dropout=run.recipe.student.dropout
    )
    if type(network).__name__ not in (run.config.architectures or ()):
        outputs = ", ".join(run.data.labels) or "start and end of a span"
        log.info("the head of %s is freshly initialised: %s", type(network).__name__, outputs)
    network.config.affinage_task = run.task.name
    folder = run.open_folder(out, verb="finetune", overwrite=overwrite)
    best, trained = train_task_model(run, network, folder, title="fine-tuning", callbacks=callbacks, quiet=quiet)

    final = load_task_model(best, kind)
    final.to(network.device)  # type: ignore[arg-type]
    if run.task.no_answer:
        run.tune_no_answer_(final)
    scores: list[Score] = []
    compared: dict[str, PartScores] = {}  # the last part: test, or the only one
    for split, examples in ((run.data.valid_split, run.data.valid), (run.data.test_split, run.data.test)):
        if examples:
            result = run.evaluate(final, examples, name=name, split=split)
            scores += result.scores
            compared = {split: result.examples}
    report = Report(
        command="finetune",
        models=(model_entry(final, name=name, path=out, base=model),),
        scores=tuple(scores),
        training=trained,
        notes=run.data.notes,
        provenance=run.provenance(command or f"affinage finetune {model} --task {task} --data {data} --out {out}"),
    )
    run.tokenizer.model_max_length = run.length  # longer rows would meet positions that were never fine-tuned
    if processes().is_main_process:

        def write(aside: Path) -> None:
            write_model_folder(
                aside, model=final, tokenizer=run.tokenizer, recipe=run.recipe, report=report, base=str(model)
            )
            write_example_scores(aside, ExampleScores(run.task.name, compared))

        folder.finish(write)
    return report
