"""Tiny models, exported once, and one server of all of them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import affinage
from serving import Vectors, serving
from tiny import save_tiny
from tiny_tasks import tuned_teacher

LOUD = {"initializer_range": 0.5}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Task -> the folder that `affinage export` wrote for a random model of it."""
    folder = tmp_path_factory.mktemp("exported")

    def export(task: str) -> Path:
        if not (folder / task).exists():
            plain = folder / f"plain-{task}"
            made = (
                save_tiny(plain, "camembert", "mlm", **LOUD)
                if task == "mlm"
                else tuned_teacher(plain, task, **LOUD, affinage_task=task)
            )
            affinage.export(made, out=folder / task)
        return folder / task

    return export


@pytest.fixture(scope="session")
def predictors(exported: Callable[[str], Path]) -> dict[str, Any]:
    """Name -> predictor, of every kind."""
    tasks = ("sentiment", "nli", "ner", "qa", "topics", "rating", "mlm")
    return {**{task: affinage.load(exported(task), threads=1) for task in tasks}, "vectors": Vectors()}


@pytest.fixture(scope="session")
def port(predictors: dict[str, Any]) -> Iterator[int]:
    """Of a server of all of them."""
    with serving(predictors) as found:
        yield found
