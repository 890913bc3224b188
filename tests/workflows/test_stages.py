"""Recipes of several stages: an assistant between teacher and student, a student that goes on, text before the task."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

import affinage.workflows.corpus_stage as corpus_stage
import affinage.workflows.distil as general
from affinage.errors import InputError
from affinage.report.report import Report
from affinage.workflows.distil import distil
from affinage.workflows.distil_task import distil_task
from tiny_data import ON_TEXT, same_weights, write_task
from tiny_tasks import tuned_teacher

TWO = """
name: two
source: original
kind: distil
student: {num_hidden_layers: 1}
stages:
- name: first
  assistant: {num_hidden_layers: 2}
  losses: [{name: soft_kl}]
- name: second
  losses: [{name: cosine_distance}]
"""
BOTH = """
name: both
source: original
kind: distil
student: {num_hidden_layers: 2}
stages:
- {name: general, losses: [{name: hidden_mse}]}
- {name: more, losses: [{name: mlm}]}
- {name: prediction, on: task, losses: [{name: task_soft_kl}, {name: task_labels}]}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, text in (("two", TWO), ("both", BOTH)):
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "tune.yaml").write_text(
        "name: t\nsource: original\nkind: finetune\nstages:\n- {name: t, training: {max_steps: 2, row_length: 48}}\n"
    )
    return tmp_path


def test_an_assistant_teaches_the_student(
    place: Path, teacher: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a run that was stopped between the two goes on with the second alone, to the same student."""
    asked: dict[str, Any] = {"corpus": [corpus], "recipe": place / "two.yaml", "overrides": ON_TEXT, "quiet": True}
    report = distil(teacher, out=place / "out", **asked)
    assert [(m.name, m.layers) for m in report.models] == [("student", 1), ("first", 2), ("teacher", 4)]
    assert report.training is not None and report.training.steps == 4
    assert {"first: soft_kl", "second: cosine_distance"} <= set(report.training.losses)
    assert AutoModelForMaskedLM.from_pretrained(place / "out").config.num_hidden_layers == 1
    assert sorted(p.name for p in (place / "out" / "runs").iterdir()) == ["stage-1", "stage-2"]
    assert Report.from_json((place / "out" / "report.json").read_text()) == report

    calls = []

    def stopped(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["label"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return corpus_stage.train_stage(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(general, "train_stage", stopped)
        with pytest.raises(KeyboardInterrupt):
            distil(teacher, out=place / "cut", **asked)
    assert (place / "cut.partial" / "stage-1" / "report.json").is_file()
    distil(teacher, out=place / "cut", **asked)
    assert same_weights(place / "out", place / "cut")
    assert not (place / "cut.partial").exists()


def test_text_then_the_task_in_one_command(place: Path, teacher: Path, corpus: Path) -> None:
    data, out = write_task(place / "data", "sentiment"), place / "out"
    report = distil_task(
        teacher,
        task="sentiment",
        data=data,
        corpus=[corpus],
        out=out,
        recipe=place / "both.yaml",
        teacher_recipe=place / "tune.yaml",
        overrides=ON_TEXT,
        quiet=True,
    )
    assert [m.layers for m in report.models] == [2, 4]
    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert model.config.num_hidden_layers == 2
    assert {path.name for path in out.iterdir()} >= {"teacher", "examples.json", "report.json"}
    assert "general" not in {path.name for path in out.iterdir()}


def test_what_is_not_fed_is_left_out_and_that_is_said(
    place: Path, teacher: Path, corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_task(place / "data", "sentiment")
    with caplog.at_level(logging.INFO, "affinage"):
        distil(teacher, corpus=[corpus], out=place / "a", recipe=place / "both.yaml", overrides=ON_TEXT, quiet=True)
        tuned = tuned_teacher(place, "sentiment")
        distil_task(
            tuned,
            task="sentiment",
            data=data,
            out=place / "b",
            recipe=place / "both.yaml",
            overrides=ON_TEXT,
            quiet=True,
        )
    assert "left out, since no --task and --data feed it: stage prediction" in caplog.text
    assert "left out, since no --corpus feeds it: stage general, more" in caplog.text
    assert json.loads((place / "b" / "config.json").read_text())["affinage_task"] == "sentiment"


def test_a_later_stage_that_cannot_be_is_refused_before_the_first(place: Path, teacher: Path, corpus: Path) -> None:
    before = sorted(place.rglob("*"))
    for key, value, says in (
        ("stages.1.losses", "[{name: task_labels}]", "a task's logits, and a stage on text has none"),
        ("student.num_hidden_layers", "3", "exceeds the teacher's 2 layers"),
    ):
        with pytest.raises(InputError, match=says):
            distil(
                teacher,
                corpus=[corpus],
                out=place / "out",
                recipe=place / "two.yaml",
                overrides={**ON_TEXT, key: value},
                quiet=True,
            )
        with pytest.raises(InputError, match="no stage on task"):
            distil_task(teacher, task="sentiment", data="x", out=place / "out", recipe=place / "two.yaml")
    assert sorted(place.rglob("*")) == before
