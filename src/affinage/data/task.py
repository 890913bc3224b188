"""What a task is: how its examples look, which columns hold them, how it is scored. One YAML a task in `tasks/`."""

from importlib import resources
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from affinage.errors import InputError, unknown

Kind = Literal["sequence", "pair", "token", "span"]


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
    """names in `evaluation.metrics`; the first one selects checkpoints"""


def task_names() -> list[str]:
    """Every known task, sorted."""
    return sorted(p.name[:-5] for p in resources.files("affinage.data.tasks").iterdir() if p.name.endswith(".yaml"))


def load_task(name: str) -> Task:
    """The task called `name`. Raises: InputError with the nearest name if there is none."""
    if name not in task_names():
        raise InputError(unknown("task", name, task_names()))
    text = (resources.files("affinage.data.tasks") / f"{name}.yaml").read_text(encoding="utf-8")
    return Task.model_validate({"name": name, **yaml.safe_load(text)})
