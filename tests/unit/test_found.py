"""Which system a folder of earlier work counts for."""

from pathlib import Path

import pytest

from affinage.recipe import recipe_text
from affinage.report.report import Hardware, ModelEntry, Provenance, Report, Score
from affinage.workflows.found import Found, made_from


def entry(name: str, base: str | None) -> ModelEntry:
    return ModelEntry(name=name, path=name, parameters=1, layers=1, size_bytes=4, base=base)


def report(command: str, *models: ModelEntry) -> Report:
    made = Provenance(
        affinage="0", python="3", torch=None, transformers=None,
        hardware=Hardware(cpu="Made-up", cores=2, memory_gib=1), command="affinage", date="2026-01-01", seed=0,
        recipe_sha256=None, data={}, seconds=1,
    )  # fmt: skip
    score = Score(model="student", task="sentiment", metric="accuracy", value=0.5, n=2)
    return Report(command=command, models=models, scores=(score,), provenance=made)


@pytest.mark.parametrize(
    ("origin", "expected"), [("runs/teacher", "runs/teacher by task"), (None, "runs/teacher-sentiment-1 by task")]
)
def test_distilled_for_a_task_it_is_its_teachers_origin_and_the_recipe(
    tmp_path: Path, origin: str | None, expected: str
) -> None:
    """Teachers of several tasks and seeds are one system where they were made from one model."""
    (tmp_path / "recipe.yaml").write_text(recipe_text("task"), encoding="utf-8")
    models = entry("student", "runs/teacher-sentiment-1"), entry("teacher", origin)
    assert Found(tmp_path, report("distil", *models)).base == expected


def test_what_a_tuned_model_was_made_from(tmp_path: Path) -> None:
    assert made_from(tmp_path) is None and made_from("shipped:teacher") is None
    (tmp_path / "report.json").write_text("[]", encoding="utf-8")
    assert made_from(tmp_path) is None
    text = report("finetune", entry("tuned", "runs/teacher")).to_json()
    (tmp_path / "report.json").write_text(text, encoding="utf-8")
    assert made_from(tmp_path) == "runs/teacher"
