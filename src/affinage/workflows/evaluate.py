"""`affinage evaluate`: a fine-tuned model and labelled data -> its scores with intervals."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from affinage.data.examples import read_examples
from affinage.data.features import stride_for
from affinage.data.readers import find_parts, part_named
from affinage.data.task import Task, load_task
from affinage.errors import InputError
from affinage.evaluation.evaluator import evaluate_model, model_labels
from affinage.evaluation.footprint import model_entry
from affinage.models.checkpoint import check_fit, load_task_model, load_tokenizer, max_length, read_config, task_of
from affinage.models.shipped import located
from affinage.recipe import Recipe, Training
from affinage.report.provenance import provenance
from affinage.report.report import Report
from affinage.workflows.labelled_data import (
    CHOOSES,
    REST,
    data_fingerprints,
    hold_out,
    labelled_parts,
    refuse_unknown_labels,
    rename_labels,
    slices,
)

log = logging.getLogger(__name__)


def evaluate(
    model: str | Path,
    *,
    task: str | None = None,
    data: str | Path,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    batch_size: int = 32,
    command: str | None = None,
) -> Report:
    """The scores of a fine-tuned model (a folder or hub name) on labelled data.

    `task`: None takes the one noted in the model's config. `data`: a file, a hub name, or a folder of parts, of which
    `split` chooses one (default: test, or what the task reports on in its place). Labels are matched by name. Texts are
    cut at the row length the model was fine-tuned with, where its folder has the recipe; else at what the model takes.

    Raises: InputError or DataError for whatever cannot be used.
    """
    began = time.perf_counter()
    config = read_config(model)
    name = task or task_of(config)
    if name is None:
        raise InputError(f"model '{model}' does not say its task; name it, for example: --task sentiment")
    wanted = load_task(name)
    if batch_size < 1:
        raise InputError(f"batch size {batch_size}: must be at least 1")
    tokenizer = load_tokenizer(model)
    check_fit(tokenizer, config, where=model)
    part, source = _choose(data, split, wanted, columns)
    network = load_task_model(model, wanted.kind)
    examples = read_examples(wanted, source, columns=columns)
    notes = slices(wanted, {"valid" if part == REST else part_named(part): len(examples)})
    if part == REST:
        examples, _ = hold_out(examples, CHOOSES)
    if wanted.kind not in ("span", "regression"):
        examples = rename_labels(examples, model_labels(network))
        refuse_unknown_labels(examples, model_labels(network), where=f"model '{model}'")
    tuned = fine_tuning(model)
    length = min(tuned.row_length, max_length(config)) if tuned else max_length(config)
    network.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
    result = evaluate_model(
        network,
        tokenizer,
        wanted,
        examples,
        max_length=length,
        stride=stride_for(length),
        batch_size=batch_size,
        name=Path(model).name,
        split=part,
        seeds=(tuned.seed,) if tuned else (),
    )
    if result.truncated:
        log.info("%d of %d texts are longer than %d tokens: truncated", result.truncated, len(examples), length)
    return Report(
        command="evaluate",
        models=(model_entry(network, name=Path(model).name, path=model, folder=located(model)),),
        scores=result.scores,
        notes=notes,
        provenance=provenance(
            command=command or f"affinage evaluate {model} --task {name} --data {data}",
            seed=None,
            recipe_sha256=None,
            data=data_fingerprints({"": source}),
            seconds=time.perf_counter() - began,
        ),
    )


def _choose(
    data: str | Path, split: str | None, task: Task, columns: Mapping[str, str] | None
) -> tuple[str | None, str]:
    """The part to evaluate, as it is called in scores, and its source. Raises: InputError where there is none."""
    parts = find_parts(data) if split else labelled_parts(task, data, columns=columns)
    if "all" in parts:
        if split is not None:
            raise InputError(f"{data}: is one file; --split {split} chooses among the parts of a folder or hub name")
        return None, parts["all"]
    if split is None and "test" not in parts and "valid" in parts and task.dev != "valid":
        return "dev" if task.dev == "test" else REST, parts["valid"]
    part = part_named(split or "test")
    if part not in parts:
        raise InputError(f"{data}: has no {part} part; choose one with --split: {', '.join(parts)}")
    return part, parts[part]


def fine_tuning(model: str | Path) -> Training | None:
    """How the model was fine-tuned, where its folder says so: its row length makes scores comparable."""
    path = Path(model) / "recipe.yaml"
    if not path.is_file():
        return None
    recipe = Recipe.load(path)
    last = recipe.stages[-1]
    return last.training if recipe.kind == "finetune" or last.on == "task" else None
