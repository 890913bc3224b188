"""`affinage finetune`: a pre-trained model and labelled data -> a task model, its best checkpoint scored."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback, set_seed
from transformers.integrations.integration_utils import TensorBoardCallback

from affinage.data.batches import LabelledRows
from affinage.data.encoding import Row
from affinage.data.examples import Example
from affinage.data.features import encode, fitted, stride_for, targets
from affinage.data.task import Task, load_task
from affinage.evaluation.evaluator import evaluate_model, pad_id, predict_rows, references, takes_types
from affinage.evaluation.footprint import model_entry
from affinage.evaluation.metrics import metric
from affinage.models.checkpoint import (
    check_fit,
    load_task_model,
    load_tokenizer,
    max_length,
    read_config,
    weights_fingerprint,
)
from affinage.recipe import Recipe, Training
from affinage.report.provenance import provenance
from affinage.report.report import Report, Score, TrainingRun
from affinage.training.allocator import keep_big_buffers
from affinage.training.arguments import computes_in_bf16
from affinage.training.clock import Clock
from affinage.training.interruption import StopOnInterrupt
from affinage.training.model_folder import write_model_folder
from affinage.training.processes import processes
from affinage.training.progress import RichProgress
from affinage.training.resume import train
from affinage.training.run_folder import RunFolder, refuse_existing
from affinage.training.task_trainer import TaskTrainer
from affinage.workflows.labelled_data import TaskData, data_fingerprints, training_data

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
    began = time.perf_counter()
    refuse_existing(out, overwrite=overwrite)
    wanted = load_task(task)
    plan = Recipe.load(recipe, overrides)
    training = plan.only_stage("finetune").training
    plan = plan.model_copy(update={"task": wanted.name})
    computes_in_bf16(training.precision)
    config = read_config(model)
    tokenizer = load_tokenizer(model)
    check_fit(tokenizer, config, where=model)
    length = _row_length(training, max_length(config), model)
    rows_of = training_data(wanted, data, columns=columns)
    fingerprints = data_fingerprints(rows_of.sources)
    rows = encode(tokenizer.backend_tokenizer, rows_of.train, max_length=length, stride=stride_for(length))
    _tell(rows_of, rows, length)

    set_seed(training.seed)
    network = load_task_model(model, wanted.kind, labels=rows_of.labels, seed=training.seed)
    if type(network).__name__ not in (config.architectures or ()):
        outputs = ", ".join(rows_of.labels) or "start and end of a span"
        log.info("the head of %s is freshly initialised: %s", type(network).__name__, outputs)
    network.config.affinage_task = wanted.name
    identity = {
        "verb": "finetune",
        "recipe": plan.sha256,
        "model": str(model),
        "weights": weights_fingerprint(model),
        "task": task,
        "data": fingerprints,
        "columns": dict(columns or {}),
    }
    with processes().main_process_first():
        folder = RunFolder.open(Path(out), identity=identity, overwrite=overwrite)
    labelled = LabelledRows(rows, targets(rows_of.train, rows, rows_of.labels), pad_id(tokenizer), takes_types(network))
    best, run = _train(
        network, wanted, training, labelled, rows_of.valid, tokenizer, folder, length, callbacks=callbacks, quiet=quiet
    )

    final = load_task_model(best, wanted.kind)
    final.to(network.device)  # type: ignore[arg-type]
    tokenizer.model_max_length = length  # longer rows would meet positions that were never fine-tuned
    scores: list[Score] = []
    for split, examples in ((rows_of.valid_split, rows_of.valid), ("test", rows_of.test)):
        if examples:
            scores += evaluate_model(
                final,
                tokenizer,
                wanted,
                examples,
                max_length=length,
                stride=stride_for(length),
                name=Path(out).name,
                split=split,
                seeds=(training.seed,),
            ).scores
    report = Report(
        command="finetune",
        models=(model_entry(final, name=Path(out).name, path=out),),
        scores=tuple(scores),
        training=run,
        provenance=provenance(
            command=command or f"affinage finetune {model} --task {task} --data {data} --out {out}",
            seed=training.seed,
            recipe_sha256=plan.sha256,
            data=fingerprints,
            seconds=time.perf_counter() - began,
        ),
    )
    if processes().is_main_process:
        folder.finish(
            lambda aside: write_model_folder(
                aside, model=final, tokenizer=tokenizer, recipe=plan, report=report, base=str(model)
            )
        )
    return report


def _row_length(training: Training, limit: int, model: str | Path) -> int:
    if training.row_length > limit:
        log.info("rows have %d tokens, all that %s takes (the recipe allows %d)", limit, model, training.row_length)
    return min(training.row_length, limit)


def _tell(data: TaskData, rows: Sequence[Row], length: int) -> None:
    """What was read and cut, in the log."""
    total = len(data.train)
    log.info("%d rows to train on, %d valid (%s), %d test", total, len(data.valid), data.valid_split, len(data.test))
    cut = fitted(rows)
    for count, what in ((cut.truncated, "truncated"), (cut.strided, "read in overlapping windows")):
        if count:
            log.info("%d of %d training texts are longer than %d tokens: %s", count, total, length, what)


def _train(
    model: PreTrainedModel,
    task: Task,
    training: Training,
    rows: LabelledRows,
    valid: Sequence[Example],
    tokenizer: PreTrainedTokenizerFast,
    folder: RunFolder,
    length: int,
    *,
    callbacks: Sequence[TrainerCallback],
    quiet: bool,
) -> tuple[Path, TrainingRun]:
    """Train `model` in place, from the last whole checkpoint if there is one. The best checkpoint, and the run."""
    keep_big_buffers()
    valid_rows = encode(tokenizer.backend_tokenizer, valid, max_length=length, stride=stride_for(length))
    expected = references(valid)

    def score(network: PreTrainedModel) -> dict[str, float]:
        predicted = predict_rows(network, valid, valid_rows, pad_id=rows.pad_id)
        return {name: metric(name).score(predicted, expected) for name in task.metrics}

    stop, clock = StopOnInterrupt(), Clock(folder.partial / "seconds")
    trainer = TaskTrainer(
        model,
        training,
        rows=rows,
        folder=folder,
        score=score,
        metric=task.metrics[0],
        processes=processes().num_processes,
        callbacks=[
            stop,
            clock,
            RichProgress("fine-tuning", quiet=quiet),
            TensorBoardCallback(SummaryWriter(str(folder.logs))),
            *callbacks,
        ],
    )
    checkpoint = folder.last_checkpoint()
    train(trainer, checkpoint, stop=stop)
    last_loss = next((entry["loss"] for entry in reversed(trainer.state.log_history) if "loss" in entry), None)
    return trainer.best_checkpoint, TrainingRun(
        steps=trainer.state.global_step,
        tokens=int(trainer.state.num_input_tokens_seen),
        seconds=clock.seconds,
        losses={} if last_loss is None else {"cross_entropy": last_loss},
        held_out={} if trainer.state.best_metric is None else {task.metrics[0]: trainer.state.best_metric},
    )
