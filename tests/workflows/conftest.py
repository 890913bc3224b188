"""The road, gone once for this folder: a teacher, its student, and the student fine-tuned on every task."""

from pathlib import Path

import pytest

from affinage.workflows.distil import distil
from affinage.workflows.finetune import finetune
from affinage.workflows.pretrain import pretrain
from tiny_data import ON_TEXT, SHAPE, STEPS, TASKS, write_corpus, write_task


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("text") / "corpus")


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A pre-trained folder."""
    out = tmp_path_factory.mktemp("pretrain") / "teacher"
    pretrain([corpus], out=out, overrides={**ON_TEXT, **SHAPE}, quiet=True)
    return out


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory, corpus: Path, teacher: Path) -> Path:
    """A distilled folder."""
    out = tmp_path_factory.mktemp("distil") / "student"
    distil(teacher, corpus=[corpus], out=out, overrides=ON_TEXT, quiet=True)
    return out


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Task -> a folder of labelled data."""
    return {task: write_task(tmp_path_factory.mktemp("labelled") / task, task) for task in TASKS}


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory, student: Path, labelled: dict[str, Path]) -> dict[str, Path]:
    """Task -> the student fine-tuned on it."""
    folder = tmp_path_factory.mktemp("finetune")
    for task, data in labelled.items():
        finetune(student, task=task, data=data, out=folder / task, overrides=STEPS, quiet=True)
    return {task: folder / task for task in labelled}
