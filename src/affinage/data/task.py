"""What a task is: how its examples look, which columns hold them, how it is scored. One YAML a task in `tasks/`."""

from importlib import resources
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from affinage.errors import InputError, unknown

Kind = Literal["sequence", "pair", "multi_label", "regression", "token", "span"]
"""What an example asks for: one class of a text or of two, any number of classes, a number, tags, a span."""


class Task(BaseModel):
    """A task: its kind, where its examples' fields are found, its labels and its metrics."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Kind
    description: str
    columns: dict[str, str]
    """field of an example -> column of the data; overridden with `--column field=column`"""
    label_names: tuple[str, ...] | None = None
    """names of the labels where the data numbers them 0, 1, …; None: labels are what the training part holds"""
    metrics: tuple[str, ...]
    """names in `evaluation.metrics`; the first selects checkpoints and stands for the task in its suite's average"""
    dev: Literal["valid", "test", "both"] = "valid"
    """what a valid part is for where there is no test part: to choose checkpoints; to be reported on, checkpoints being
    chosen on held-out training rows; or both, a fifth of its texts to choose and the rest to report on"""
    no_answer: bool = False
    """of spans: whether a context may hold no answer, so that a threshold is tuned and kept in the model's config"""
    suite: str | None = None
    """the suite whose macro average the task's first metric goes into"""
    official_rows: dict[str, int] = {}
    """part -> its rows as published: fewer are a slice, and reports say so"""


def task_names() -> list[str]:
    """Every known task, sorted."""
    return sorted(p.name[:-5] for p in resources.files("affinage.data.tasks").iterdir() if p.name.endswith(".yaml"))


def load_task(name: str) -> Task:
    """The task called `name`. Raises: InputError with the nearest name if there is none."""
    if name not in task_names():
        raise InputError(unknown("task", name, task_names()))
    text = (resources.files("affinage.data.tasks") / f"{name}.yaml").read_text(encoding="utf-8")
    return Task.model_validate({"name": name, **yaml.safe_load(text)})
