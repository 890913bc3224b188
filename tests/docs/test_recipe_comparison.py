"""The comparison of recipes: its commands parse, what it needs comes first, what it keeps is enough for a report."""

import gzip
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import typer

from affinage.cli.app import app
from affinage.data.task import load_task
from affinage.recipe import Recipe, parse_overrides

FOLDER = Path(__file__).parents[2] / "benchmarks" / "recipes"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="benchmarks are not part of the source distribution")


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts, imported as they import one another."""
    monkeypatch.syspath_prepend(str(FOLDER))


def every(**options: Any) -> dict[str, Any]:
    """Folder -> its job, of both languages."""
    from jobs import LANGUAGES, Budget, jobs  # type: ignore[import-not-found]

    return {job.out: job for language in LANGUAGES for job in jobs(language, Budget(), **options)}


def test_every_command_parses_and_its_recipe_loads() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = every(suite=True)
    for job in known.values():
        verb, *arguments = job.arguments
        given = commands[verb].make_context("affinage", [*arguments, "--out", job.out]).params
        if given.get("task"):
            load_task(given["task"])
        if "settings" in given:
            recipe = (given.get("recipe") or "finetune").removesuffix("-augmented.yaml").removesuffix("-longer.yaml")
            assert Recipe.load(recipe, parse_overrides(given["settings"] or ()))
        assert set(job.after) <= {*known, "en/encoder"}


def test_the_same_steps_for_every_recipe_on_a_task() -> None:
    steps: dict[str, set[int]] = {}
    for job in every().values():
        if job.scores and "/baseline-" not in job.out:
            said = [int(word.split("=")[1]) for word in job.arguments if "max_steps=" in word]
            times = 4 if "-longer-" in job.out else 1
            assert sum(said) % times == 0
            steps.setdefault(job.out.rsplit("-", 2)[1], set()).add(sum(said) // times)
    assert len(steps) == 10 and all(len(found) == 1 for found in steps.values())


def test_what_is_needed_comes_first_and_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    from run import chosen, with_needs  # type: ignore[import-not-found]

    known = every()
    asked = [known["en/tinybert-6-augmented-on-rte-1"]]
    order = [job.out for job in with_needs(asked, known.values(), tmp_path)]
    assert order == [
        "en/head", "en/teacher", "en/teacher-mnli-0", "en/teacher-rte-1", "en/distilcamembert",
        "en/distilcamembert-mnli-0", "en/more-rte", asked[0].out,
    ]  # fmt: skip
    for made in ("en/teacher", "en/teacher-mnli-0", "en/distilcamembert-mnli-0"):
        (tmp_path / made).mkdir(parents=True)
    order = [job.out for job in with_needs(asked, known.values(), tmp_path)]
    assert order == ["en/teacher-rte-1", "en/more-rte", asked[0].out]
    given = Namespace(seeds=2, tasks=["rte"], recipes=["task"])
    kept = {job.out for job in known.values() if job.scores and chosen(job, given)}
    students = {f"en/{name}-rte-{seed}" for name in ("teacher", "task-on") for seed in (0, 1)}
    assert kept == {*students, "en/baseline-rte-0"}


def test_narrow_students_start_from_their_own_or_from_the_teacher() -> None:
    known = every()
    on_text, alone = known["en/narrow-tinybert-6-on-mrpc-0"], known["en/narrow-tinybert-task-on-mrpc-0"]
    assert on_text.after == ("en/teacher-mrpc-0", "en/narrow-tinybert-6") and "--from" in on_text.arguments
    assert "student.hidden_size=192" in known["en/narrow-tinybert-6"].arguments
    assert alone.after == ("en/teacher-mrpc-0",) and "student.hidden_size=192" in alone.arguments
    assert not any(out.startswith(("fr/narrow", "en/narrow-distil", "en/narrow-patient")) for out in known)


def test_runs_outside_the_common_comparison_stand_apart_beside_their_own_teachers(tmp_path: Path) -> None:
    from kept import apart  # type: ignore[import-not-found]

    runs = tmp_path / "runs"
    others = ["task-on-mrpc-0", *(f"teacher-mrpc-{seed}" for seed in (0, 1)), "teacher-squad-0", "baseline-mrpc-0"]
    for name in ("narrow-minilm", "narrow-tinybert-6", "narrow-minilm-mrpc-1", *others):
        (runs / name).mkdir(parents=True)
    found = apart(tmp_path, "en", "narrow", lambda name: name.startswith("narrow-"))
    assert [f for f in found if f.startswith("runs/")] == ["runs/teacher-mrpc-1", "runs/baseline-mrpc-0"]
    assert "narrow/narrow-minilm-mrpc-1" in found and {p.name for p in runs.iterdir()} == set(others)
    assert apart(tmp_path, "en", "longer", lambda name: name.startswith("narrow-")) == []


def test_what_is_kept_is_small_and_stays(tmp_path: Path) -> None:
    from kept import is_kept, keep  # type: ignore[import-not-found]

    made, runs = tmp_path / "made", tmp_path / "runs"
    made.mkdir()
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "examples.json").write_text('{"task": "rte"}', encoding="utf-8")
    report = {"command": "finetune", "training": {"steps": 3, "curves": {"loss": [[1, 2.0]]}}}
    (made / "report.json").write_text(json.dumps(report), encoding="utf-8")
    assert not is_kept("en/teacher-rte-0", runs)
    keep(made, "en/teacher-rte-0", runs)
    place = runs / "en" / "teacher-rte-0"
    assert is_kept("en/teacher-rte-0", runs) and {p.name for p in place.iterdir()} == {
        "report.json",
        "examples.json.gz",
    }
    assert json.loads((place / "report.json").read_text(encoding="utf-8"))["training"] == {"steps": 3, "curves": {}}
    before = (place / "examples.json.gz").read_bytes()
    assert gzip.decompress(before) == b'{"task": "rte"}'
    (made / "examples.json").write_text('{"task": "other"}', encoding="utf-8")
    keep(made, "en/teacher-rte-0", runs)
    assert (place / "examples.json.gz").read_bytes() == before


def test_a_trial_is_the_same_jobs_in_few_steps() -> None:
    from jobs import shortened

    for job in every().values():
        cut = shortened(job, 2)
        said = [word for word in cut.arguments if "max_steps=" in word]
        assert len(cut.arguments) == len(job.arguments) and all(word.endswith("=2") for word in said)
