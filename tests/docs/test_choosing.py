"""docs/choosing.md is what the committed runs say, and says what has not been run."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from affinage.report.report import Comparison, Hardware, Provenance, Report, Score

FOLDER = Path(__file__).parents[2] / "benchmarks" / "recipes"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="benchmarks are not part of the source distribution")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, imported as it imports its neighbours."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import page as module  # type: ignore[import-not-found]

    return module  # type: ignore[no-any-return]


def test_the_page_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, str(FOLDER / "page.py"), "--check"], timeout=120, check=False)
    assert done.returncode == 0, "run python benchmarks/recipes/page.py"


def test_what_is_not_run_says_so(page: ModuleType, tmp_path: Path) -> None:
    assert "Not run yet." in page.figures(tmp_path, tmp_path)


def test_a_partial_table(page: ModuleType, tmp_path: Path) -> None:
    """Two tasks of the teacher's, one of a recipe's with one seed of three: no choice is made of it."""
    language = page.LANGUAGES[0]
    told = page.language_part(language, made_up(), [], tmp_path).splitlines()
    row = next(line for line in told if line.startswith("| `task` |"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:4] == ["`task`", "task", "90.0 (85.0 to 95.0), 1 of 3 seeds", "not run yet"]
    # one task: (0.8 - 0.08) / 0.8; half the difference's interval of 0.08 over 0.8
    assert cells[-2] == "90.0 (85.0 to 95.0), of 1 of 6 tasks" and cells[-1] == ""
    assert "80.0 (78.0 to 82.0), baseline 60.0" in "".join(told)
    assert "- No choice yet: 0 of 9 recipes have a score on every task." in told
    augmented = next(line for line in told if "`tinybert-6-augmented`" in line)
    assert augmented.split("|")[6:9] == [" – ", " – ", " – "], "it is not run on the large tasks"


def test_the_average_is_over_the_teachers(page: ModuleType) -> None:
    """0.72 + 0.35 over 0.8 + 0.5, and the root of the summed squares of 0.04 and 0.03 over 1.3."""
    language = page.LANGUAGES[0]
    line = next(line for line in page.lines(language) if line.system == "teacher by task")
    found = page.average(line, language, made_up(second=True))
    assert found.tasks == 2 and found.kept == pytest.approx(1.07 / 1.3)
    assert found.high - found.kept == pytest.approx(0.05 / 1.3)


def test_time_is_a_ratio_on_the_same_task(page: ModuleType, tmp_path: Path) -> None:
    for name, each in {
        "task-on-mrpc-0": 0.3, "distilcamembert-mrpc-0": 0.2, "task-on-rte-0": 0.8, "distilcamembert-rte-0": 0.4,
        "task-on-rte-1": 9.0,
    }.items():  # fmt: skip
        folder = tmp_path / "en" / name
        folder.mkdir(parents=True)
        (folder / "seconds.json").write_text(json.dumps({"step_seconds": each, "steps": 9}), encoding="utf-8")
    line = next(line for line in page.lines(page.LANGUAGES[0]) if line.system == "teacher by task")
    assert page.seconds(line, page.LANGUAGES[0], tmp_path) == pytest.approx((1.5 + 2.0) / 2)


def test_the_suite_has_the_winner_beside_the_teacher_and_the_average(page: ModuleType, tmp_path: Path) -> None:
    """Of several metrics of a task the first, of the suite its mean."""
    system, main = "teacher by tinybert-task", "mean(accuracy, f1:equivalent)"
    figures = [("mrpc", main, 0.8, 0.72), ("mrpc", "accuracy", 0.7, 0.6), ("glue", "macro average", 0.6, 0.57)]
    scores = [
        score(name, t, m, v) for t, m, *values in figures for name, v in zip(("teacher", system), values, strict=True)
    ]
    beside = [compared(t, m, own - whole, 0.04, own / whole, model=system) for t, m, whole, own in figures]
    report = made_up().model_copy(
        update={"scores": tuple(scores), "comparisons": tuple(beside), "notes": ("A slice.",)}
    )
    told = page.suite_part(report)
    assert (
        "| mrpc | mean(accuracy, f1:equivalent) | 9 | 60.0 | 80.0 (78.0 to 82.0) | 72.0 (70.0 to 74.0) | 90.0 (" in told
    )
    assert "| glue | macro average | 9 | 60.0 | 60.0 (" in told and "- A slice." in told and "| accuracy |" not in told
    (tmp_path / "en-report.json").write_text(report.to_json(), encoding="utf-8")
    assert "The whole of GLUE" not in page.figures(tmp_path, tmp_path)
    (tmp_path / "en-suite-report.json").write_text(report.to_json(), encoding="utf-8")
    assert told in page.figures(tmp_path, tmp_path)


def test_more_steps_stand_apart_beside_the_teacher_of_the_same_seed(page: ModuleType, tmp_path: Path) -> None:
    """Not in the common table, and the average is of the tasks that are there."""
    system, mrpc, rte = f"teacher by {page.LONGER}", "mean(accuracy, f1:equivalent)", "accuracy"
    own = (score(system, "mrpc", mrpc, 0.72), score(system, "rte", rte, 0.35))
    beside = [("mrpc", mrpc, -0.08, 0.04, 0.9), ("rte", rte, -0.15, 0.03, 0.7)]
    report = made_up()
    report = report.model_copy(update={
        "scores": (*report.scores, *own), "comparisons": tuple(compared(*one, model=system) for one in beside),
    })  # fmt: skip
    told = page.longer_part(page.LANGUAGES[0], report)
    assert "| rte | accuracy | 9 | 60.0 | 50.0 (48.0 to 52.0) | 35.0 (33.0 to 37.0) | 70.0 (" in told
    assert "- On average 82.3 (78.5 to 86.2) % of the teacher's, over 2 tasks." in told
    (tmp_path / "en-report.json").write_text(report.to_json(), encoding="utf-8")
    assert page.LONGER not in page.figures(tmp_path, tmp_path)
    (tmp_path / "en-longer-report.json").write_text(report.to_json(), encoding="utf-8")
    assert told in page.figures(tmp_path, tmp_path)


def test_every_recipe_stands_beside_the_plain_triple_loss(page: ModuleType, tmp_path: Path) -> None:
    """Those on text too, and a task of the suite that both were run on; what is told apart is bold, better or worse."""
    mnli = page.first_metric("mnli")
    beside = [
        compared("mrpc", page.first_metric("mrpc"), 0.05, 0.04, 1.1),
        compared("mnli", mnli, -0.03, 0.01, 0.9, model="distilbert"),
        compared("mnli", mnli, 0.003, 0.01, 1.0, model="minilm"),
    ]
    told = page.language_part(page.LANGUAGES[0], made_up(), beside, tmp_path).splitlines()
    assert "| recipe | on | mrpc | mnli |" in told
    assert "| `task` | task | **+5.0 (1.0 to 9.0)** | – |" in told
    assert "| `distilbert` | text | – | **−3.0 (−4.0 to −2.0)** |" in told
    assert "| `minilm` | text | – | +0.3 (−0.7 to 1.3) |" in told


def test_narrow_students_have_a_table_of_their_own(page: ModuleType, tmp_path: Path) -> None:
    """Of their recipes and tasks alone; a recipe on text is called after the student it made."""
    report = made_up()
    mrpc = page.first_metric("mrpc")
    report = report.model_copy(update={
        "scores": (*report.scores, score("narrow-minilm", "mrpc", mrpc, 0.6)),
        "comparisons": (*report.comparisons, compared("mrpc", mrpc, -0.2, 0.04, 0.75, model="narrow-minilm")),
    })  # fmt: skip
    told = page.narrow_part(page.LANGUAGES[0], report, tmp_path).splitlines()
    assert told[0] == "### Half the width instead"
    assert next(line for line in told if line.startswith("| `minilm` | text | 75.0 (70.0 to 80.0), 1 of 3 seeds |"))
    assert not any("cola" in line or "patient-kd" in line or "augmented" in line for line in told)
    assert "- No choice yet: 0 of 6 recipes have a score on every task." in told
    (tmp_path / "en-report.json").write_text(made_up().to_json(), encoding="utf-8")
    assert "Half the width" not in page.figures(tmp_path, tmp_path)
    (tmp_path / "en-narrow-report.json").write_text(report.to_json(), encoding="utf-8")
    assert "\n".join(told) in page.figures(tmp_path, tmp_path)


def made_up(*, second: bool = False) -> Report:
    """A teacher on MRPC and RTE, and recipe `task` on the first, or on both."""
    mrpc, rte = "mean(accuracy, f1:equivalent)", "accuracy"
    scores = [
        score("teacher", "mrpc", mrpc, 0.8),
        score("teacher", "rte", rte, 0.5),
        score("teacher by task", "mrpc", mrpc, 0.72),
    ]
    comparisons = [compared("mrpc", mrpc, -0.08, 0.04, 0.9)]
    if second:
        scores.append(score("teacher by task", "rte", rte, 0.35))
        comparisons.append(compared("rte", rte, -0.15, 0.03, 0.7))
    machine = Hardware(cpu="Made-up", cores=2, memory_gib=1)
    made = Provenance(
        affinage="0", python="3", torch=None, transformers=None, hardware=machine, command="affinage report",
        date="2026-01-01", seed=None, recipe_sha256=None, data={}, seconds=1,
    )  # fmt: skip
    return Report(command="report", scores=tuple(scores), comparisons=tuple(comparisons), provenance=made)


def score(model: str, task: str, metric: str, value: float) -> Score:
    return Score(
        model=model, task=task, metric=metric, value=value, low=value - 0.02, high=value + 0.02, n=9, seeds=(0,),
        baseline=0.6,
    )  # fmt: skip


def compared(
    task: str, metric: str, difference: float, around: float, plain: float, *, model: str = "teacher by task"
) -> Comparison:
    return Comparison(
        model=model, reference="teacher", task=task, metric=metric, difference=difference,
        low=difference - around, high=difference + around, p_value=0.01, test="paired bootstrap", n=9, plain=plain,
        plain_low=plain - 0.05, plain_high=plain + 0.05, retention=None, informative=True,
    )  # fmt: skip
