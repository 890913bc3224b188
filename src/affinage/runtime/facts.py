"""What a predictor must know of its model besides the weights, and the face that every engine has."""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from affinage.data.encoding import Row
from affinage.data.task import load_task, task_names
from affinage.errors import InputError, unknown

ModelKind: TypeAlias = Literal[
    "sequence", "pair", "multi_label", "regression", "token", "span", "fill_mask", "embedding"
]
Outputs: TypeAlias = tuple[NDArray[np.float32], ...]
"""logits (C,) of a sequence; (T, C) of tokens; start (T,) and end (T,) of spans; (M, V) of a row's M masked
places; the vector (H,) of an embedding"""
TOKENS = 1024
"""of a batch, padding included, at most: what an engine computes at once"""

_OTHER_TASKS: dict[str, ModelKind] = {"fill-mask": "fill_mask", "zero-shot": "pair", "embedding": "embedding"}


class Engine(Protocol):
    """What makes logits of rows."""

    def logits(self, rows: Sequence[Row], *, batch_size: int) -> Iterator[tuple[int, Outputs]]:
        """(index of the row, its outputs without padding) for every row, longest rows first."""

    def mask_logits(self, rows: Sequence[Row], *, batch_size: int) -> Iterator[tuple[int, Outputs]]:
        """(index of the row, vocabulary logits (M, V) at its mask tokens), longest rows first."""


class ModelFacts(BaseModel):
    """What a model's logits mean, and what rows it takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ModelKind
    task: str | None = None
    texts: Literal[1, 2] | None = None
    """how many of them a number is predicted for (kind "regression"); None: one or two"""
    labels: tuple[str, ...] = ()
    """names of the classes, in the order of the logits"""
    max_length: int
    """tokens a row may have, special tokens included"""
    pad_id: int
    mask_id: int | None = None
    unk_id: int | None = None
    problem_type: str | None = None
    """as transformers' configs have it"""
    special_ids: tuple[int, ...] = ()
    no_answer_threshold: float | None = None
    """of spans: from which margin on a question has no answer (logits); None: every question has one"""
    normalize: bool = True
    """of embeddings: whether they get length 1"""
    prompt: str = ""
    """of embeddings: what is put before every text"""


def check_task(task: str | None) -> None:
    """Raises: InputError for a task that there is not."""
    if task is not None and task not in {*task_names(), *_OTHER_TASKS}:
        raise InputError(unknown("task", task, [*task_names(), *_OTHER_TASKS]))


def agreed_kind(found: ModelKind | None, *, task: str | None, noted: str | None, where: str) -> ModelKind:
    """The kind of a model that is of kind `found` and was made for the task `noted`, asked to do `task`.

    Raises: InputError where nothing says it, or the model was made for another kind of task.
    """
    check_task(task)
    asked = None if task is None else _OTHER_TASKS.get(task) or load_task(task).kind
    if found is None and asked is None:
        raise InputError(f"model '{where}': its config names no task and no head; say which with task=… (--task)")
    same_head = {found, asked} <= {"sequence", "pair"}  # one class of transformers serves both
    if asked is not None and found is not None and asked != found and not same_head:
        raise InputError(
            f"model '{where}' is a {found} model{f' ({noted})' if noted else ''}; {task} needs a {asked} one"
        )
    kind = asked or found
    assert kind is not None
    return kind


def texts_of_task(name: str | None) -> Literal[1, 2] | None:
    """How many texts an input of a task has; None where the task is not known."""
    if name not in task_names():
        return None
    return 2 if "hypothesis" in load_task(name).columns else 1
