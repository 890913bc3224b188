"""`affinage.pipeline`: in the place of `transformers.pipeline`."""

from pathlib import Path
from typing import Any

from affinage.errors import InputError, unknown
from affinage.runtime.facts import ModelKind
from affinage.runtime.load import Dtype, EngineName, load
from affinage.runtime.predictor import BATCH_SIZE
from affinage.runtime.stock.pipeline import Pipeline

_CLASSES: tuple[ModelKind, ...] = ("sequence", "pair", "multi_label", "regression")
TASKS: dict[str, tuple[ModelKind, ...]] = {
    "text-classification": _CLASSES,
    "sentiment-analysis": _CLASSES,
    "token-classification": ("token",),
    "ner": ("token",),
    "zero-shot-classification": ("pair",),
    "fill-mask": ("fill_mask",),
    "question-answering": ("span",),
    "sentence-embedding": ("embedding",),
}
"""transformers' name of a task -> kinds of models that do it"""


def pipeline(
    task: str | None = None,
    model: str | Path | None = None,
    *,
    engine: EngineName | None = None,
    threads: int | None = None,
    batch_size: int = BATCH_SIZE,
    dtype: Dtype = "float32",
    **defaults: Any,
) -> Pipeline:
    """In the place of `transformers.pipeline(task, model=…)`, for a model or for a folder that `affinage export` wrote.

    `defaults`: options of every call (`top_k`, `aggregation_strategy`, …). The rest is as in `load`.

    Raises: InputError for a task that there is not, or that the model does not do.
    """
    if task is not None and task not in TASKS:
        raise InputError(unknown("task", task, TASKS))
    if model is None:
        raise InputError("pipeline: give a model, a folder or hub name: pipeline(task, model=…)")
    asked = {"sentence-embedding": "embedding", "zero-shot-classification": "zero-shot"}.get(task or "")
    found = load(model, task=asked, engine=engine, threads=threads, batch_size=batch_size, dtype=dtype)
    if task is not None and found.kind not in TASKS[task]:
        raise InputError(f"model '{model}' is a {found.kind} model; {task} needs a {' or '.join(TASKS[task])} one")
    zero_shot = task == "zero-shot-classification"
    return Pipeline(found.loaded, batch_size=batch_size, zero_shot=zero_shot, **defaults)
