"""`affinage report` on made-up folders whose figures are known, and on a folder that was really fine-tuned."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from affinage.errors import InputError
from affinage.evaluation.example_scores import read_example_scores, references_fingerprint
from affinage.evaluation.significance import mcnemar
from affinage.recipe import Recipe
from affinage.report.report import Comparison, Report, Score
from affinage.workflows.report import collect, make_report
from tiny_runs import (
    right,
    write_baseline,
    write_benchmark,
    write_runs,
    write_trained,
    write_tuned,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runs(tmp_path_factory.mktemp("place") / "runs")


@pytest.fixture(scope="module")
def report(runs: Path) -> Report:
    return collect([runs], command="affinage report …")


def compared(report: Report, task: str, metric: str = "accuracy", model: str = "student") -> Comparison:
    (found,) = [c for c in report.comparisons if (c.task, c.metric, c.model) == (task, metric, model)]
    return found


def scored(report: Report, task: str, model: str, metric: str = "accuracy") -> Score:
    (found,) = [s for s in report.scores if (s.task, s.metric, s.model) == (task, metric, model)]
    return found


def rows_in(folder: Path, metric: str = "accuracy") -> Any:
    return read_example_scores(folder).parts["test"].rows[metric]


def test_structure(report: Report, runs: Path) -> None:
    assert [(m.name, m.layers, m.path) for m in report.models] == [
        ("teacher", 12, str(runs / "teacher")),
        ("student", 6, str(runs / "student")),
    ]


def test_scores_are_means_over_seeds_with_intervals(report: Report, runs: Path) -> None:
    for system in ("teacher", "student"):
        found = scored(report, "sentiment", system)
        means = [rows_in(runs / f"{system}-sentiment-{seed}")[:, 0].mean() for seed in range(3)]
        assert found.value == pytest.approx(np.mean(means))
        assert found.low is not None
        assert found.high is not None
        assert 0 <= found.low < found.value < found.high <= 1
        assert (found.n, found.seeds, found.split) == (400, (0, 1, 2), "test")
    assert list(dict.fromkeys(s.task for s in report.scores)) == ["sentiment", "ner", "nli"]


def test_the_baseline_stands_beside_every_score(report: Report, runs: Path) -> None:
    baseline = rows_in(runs / "baseline-sentiment-0")[:, 0].mean()
    found = scored(report, "sentiment", "student")
    assert found.baseline == pytest.approx(baseline)
    assert found.baseline_kind == "frozen embeddings"
    assert scored(report, "sentiment", "frozen embeddings of teacher").value == pytest.approx(baseline)
    assert scored(report, "nli", "student").baseline_kind == "majority"
    assert scored(report, "nli", "majority").seeds == ()


def test_what_is_kept(report: Report) -> None:
    found = compared(report, "sentiment")
    teacher, student = (scored(report, "sentiment", name).value for name in ("teacher", "student"))
    baseline = found.baseline
    assert baseline is not None
    assert found.informative
    assert found.plain == pytest.approx(student / teacher)
    assert found.retention == pytest.approx((student - baseline) / (teacher - baseline))
    assert found.difference == pytest.approx(student - teacher)
    assert found.retention < found.plain
    for value, low, high in (
        (found.plain, found.plain_low, found.plain_high),
        (found.retention, found.retention_low, found.retention_high),
        (found.difference, found.low, found.high),
    ):
        assert low is not None
        assert high is not None
        assert low < value < high
    assert found.test == "paired bootstrap"


def test_a_task_that_is_not_informative_has_no_retention(report: Report) -> None:
    found = compared(report, "nli")
    assert not found.informative
    assert (found.retention, found.retention_low, found.retention_high) == (None, None, None)


def test_a_small_difference_is_not_told_apart(report: Report) -> None:
    found = compared(report, "ner", "entity_f1")
    assert found.low <= 0 <= found.high
    assert "not told apart (n = 300)" in report.to_markdown()


def test_speed_and_sources(report: Report, runs: Path) -> None:
    assert {row.model for row in report.latency} == {"teacher", "student"}
    assert {(s.model, s.reference) for s in report.speedups} == {("student", "teacher")}
    assert {c.model for c in report.costs} == {"teacher", "student"}
    assert len(report.sources) == len(list(runs.iterdir()))
    trained = {s.model: s for s in report.sources if s.training}
    assert set(trained) == {"teacher", "student"}
    assert report.provenance.data.keys() >= {
        str(runs / "speed" / "report.json"),
        str(runs / "baseline-ner/examples.json"),
    }
    assert Report.from_json(report.to_json()) == report


def test_the_same_folders_give_the_same_figures(report: Report, runs: Path) -> None:
    again = collect([runs], command="affinage report …")
    assert (again.scores, again.comparisons) == (report.scores, report.comparisons)


def two_systems(tmp_path: Path, **teacher: Any) -> tuple[Path, Path]:
    rows = right(0.8)
    ours = write_tuned(tmp_path / "a", "runs/teacher", {"accuracy": rows}, **teacher)
    return ours, write_tuned(tmp_path / "b", "runs/student", {"accuracy": right(0.7, seed=1, like=rows)})


def test_one_seed_each_is_mcnemars_test(tmp_path: Path) -> None:
    folders = two_systems(tmp_path)
    report = collect(folders, command="x")
    found = compared(report, "sentiment")
    assert found.test == "McNemar"
    first, second = (rows_in(folder)[:, 0] > 0.5 for folder in folders)
    assert found.p_value == mcnemar(second.tolist(), first.tolist())


def test_without_a_baseline_nothing_is_informative(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = compared(collect(two_systems(tmp_path), command="x"), "sentiment")
    assert (found.baseline, found.retention, found.informative) == (None, None, False)
    assert found.plain is not None
    assert "sentiment has no baseline" in caplog.text


def test_the_highest_baseline_counts(tmp_path: Path) -> None:
    folders = [*two_systems(tmp_path)]
    for name, base, share in (("low", "runs/teacher", 0.5), ("high", "runs/student", 0.6)):
        folders.append(write_baseline(tmp_path / name, base, {"accuracy": right(share, seed=5)}))
    found = collect(folders, command="x")
    assert scored(found, "sentiment", "teacher").baseline == rows_in(tmp_path / "high")[:, 0].mean()
    assert scored(found, "sentiment", "frozen embeddings of student")


@pytest.mark.parametrize(
    ("named", "chosen", "expected"),
    [
        (("student-sentiment-0", "teacher-sentiment-0"), None, "student"),  # nobody says who taught whom
        (("student-sentiment-0", "teacher-sentiment-0", "student"), None, "teacher"),
        (("teacher", "student"), None, "teacher"),
        (("student",), None, "teacher"),
        (("teacher", "student", "teacher-sentiment-0", "student-sentiment-0"), "student", "student"),
    ],
)
def test_who_is_the_reference(runs: Path, named: tuple[str, ...], chosen: str | None, expected: str) -> None:
    found = collect([runs / name for name in named], reference=chosen, command="x")
    assert found.models[0].name == expected
    assert {c.reference for c in found.comparisons} <= {expected}


def test_a_benchmark_of_task_models_is_of_their_systems(tmp_path: Path, runs: Path) -> None:
    timed = write_benchmark(tmp_path / "speed", ["runs/student-nli-0", "runs/teacher-nli-0", "else/other"], ratio=0.5)
    folders = [runs / name for name in ("teacher-nli-0", "student-nli-0")]
    found = collect([*folders, timed], reference="teacher", command="x")
    assert [row.model for row in found.latency[:3]] == ["student", "teacher", "other"]
    assert {m.name for m in found.models} == {"teacher", "student", "other"}
    # The benchmark's own reference was the student; beside the teacher the student is 1 / 0.5 times as fast.
    turned = next(s for s in found.speedups if s.reference == "teacher")
    assert (turned.model, turned.ratio) == ("student", 2)
    assert (turned.low, turned.high) == pytest.approx((1 / 0.51, 1 / 0.49))


def test_renamed_folders_and_files_alone(tmp_path: Path) -> None:
    rows = {"accuracy": right(0.8)}
    write_tuned(tmp_path / "tuned", "/home/somebody/runs/teacher", rows)
    write_baseline(tmp_path / "floor", "../runs/teacher/", {"accuracy": right(0.5, seed=3)})
    trained = write_trained(tmp_path / "teacher")
    kept = tmp_path / "speed.json"
    (write_benchmark(tmp_path / "speed", ["runs/teacher"]) / "report.json").rename(kept)
    found = collect([trained, tmp_path / "tuned", tmp_path / "floor", kept], command="x")
    assert [m.name for m in found.models] == ["teacher"]
    assert found.comparisons == ()
    assert scored(found, "sentiment", "teacher").baseline_kind == "frozen embeddings"


def test_size_and_precision_are_those_of_the_weights_that_lie_there(tmp_path: Path) -> None:
    trained, tuned = write_trained(tmp_path / "teacher"), write_trained(tmp_path / "student")
    save_file({"a": np.ones(1000, dtype=np.float16)}, trained / "model.safetensors")
    teacher, student = collect([trained, tuned], command="x").models
    assert (teacher.size_bytes, teacher.stored_as) == ((trained / "model.safetensors").stat().st_size, "fp16")
    assert (student.size_bytes, student.stored_as) == (24_000_000, "fp32")
    alone = write_tuned(tmp_path / "tuned", "runs/base", {"accuracy": right(0.8)})
    save_file({"a": np.ones(1000, dtype=np.float16)}, alone / "model.safetensors")
    (base,) = collect([alone], command="x").models
    assert (base.name, base.path, base.stored_as) == ("base", "runs/base", "fp16")
    assert base.size_bytes < 3_000


def test_folders_are_searched_two_levels_deep(runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "far").symlink_to(runs.parent)
    (tmp_path / "empty").mkdir()
    write_tuned(tmp_path / "unfinished.partial" / "final", "runs/teacher", {"accuracy": right(0.8)})
    with caplog.at_level(logging.WARNING):
        found = collect([tmp_path / "far", tmp_path / "empty", tmp_path / "unfinished.partial"], command="x")
    assert len(found.sources) == len(list(runs.iterdir()))
    assert "empty' holds no finished report and was left out" in caplog.text
    assert "unfinished.partial' holds no finished report" in caplog.text


def test_the_folder_is_written_whole(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report"
    made = make_report([runs], out=out)
    assert sorted(p.name for p in out.iterdir()) == ["report.html", "report.json", "report.md"]
    assert Report.from_json((out / "report.json").read_text(encoding="utf-8")) == made
    assert made.provenance.command == f"affinage report {runs} --out {out}"
    with pytest.raises(InputError, match="exists"):
        make_report([runs], out=out)
    (out / "stray").touch()
    make_report([runs], out=out, overwrite=True)
    assert not (out / "stray").exists()
    assert [p.name for p in out.parent.iterdir()] == ["report"]
    with pytest.raises(InputError, match="nothing to report on"):
        make_report([out], out=tmp_path / "again")


def test_what_is_read_is_not_overwritten(runs: Path, tmp_path: Path) -> None:
    before = sorted(runs.iterdir())
    with pytest.raises(InputError, match="which is to be read; choose another --out"):
        make_report([runs / "teacher"], out=runs, overwrite=True)
    assert sorted(runs.iterdir()) == before


def refused(match: str, *folders: Path, **more: Any) -> str:
    with pytest.raises(InputError, match=match) as error:
        collect(folders, command="x", **more)
    return str(error.value)


def test_other_examples_are_not_compared(tmp_path: Path) -> None:
    ours, theirs = two_systems(tmp_path, references="ba")
    said = refused("were scored on different examples of sentiment", ours, theirs)
    assert f"'{ours}'" in said
    assert f"'{theirs}'" in said
    floor = write_baseline(tmp_path / "c", "runs/student", {"accuracy": right(0.5)}, references="ba")
    assert f"'{floor}'" in refused("different examples", theirs, floor)
    valid = write_tuned(tmp_path / "d", "runs/teacher", {"accuracy": right(0.8)}, split="valid")
    refused(r"\(test part\).*\(valid part\)", theirs, valid)


def test_a_dev_part_is_the_test_part_of_an_augmented_folder(tmp_path: Path) -> None:
    for part, system in (("dev", "teacher"), ("test", "student")):
        write_tuned(tmp_path / part, f"runs/{system}", {"accuracy": right(0.8)}, split=part)
    assert {s.model for s in collect([tmp_path], command="x").scores} == {"teacher", "student"}


def test_runs_that_differ_in_more_than_the_seed_are_no_seeds(tmp_path: Path) -> None:
    folders = [
        write_tuned(tmp_path / str(seed), "runs/teacher", {"accuracy": right(0.8)}, seed=seed) for seed in range(3)
    ]
    for place, folder in enumerate(folders):
        changed = {"training.seed": str(place), "training.learning_rate": "1e-4" if place == 2 else "3e-4"}
        (folder / "recipe.yaml").write_text(Recipe.load("finetune", changed).to_yaml(), encoding="utf-8")
    assert len(collect(folders[:2], command="x").scores[0].seeds) == 2
    said = refused("are both teacher on sentiment, with stages.0.training.learning_rate 0.000", *folders)
    assert f"'{folders[2]}'" in said
    data = {"train.jsonl": "abc"}
    for folder, text in ((folders[0], "abc"), (folders[1], "def")):
        report = Report.from_json((folder / "report.json").read_text(encoding="utf-8"))
        where = report.provenance.model_copy(update={"data": data | {"test.jsonl": text}})
        (folder / "report.json").write_text(report.model_copy(update={"provenance": where}).to_json(), encoding="utf-8")
    refused("made from different data", *folders[:2])


def test_a_model_called_as_a_baseline_is_refused(tmp_path: Path) -> None:
    refused("a model is called 'majority'", write_tuned(tmp_path / "a", "runs/majority", {"accuracy": right(0.8)}))


def test_other_metrics_are_not_compared(tmp_path: Path) -> None:
    ours = write_tuned(tmp_path / "a", "runs/teacher", {"accuracy": right(0.8)})
    theirs = write_tuned(tmp_path / "b", "runs/student", {"f1": right(0.8)})
    refused("different metrics are not compared", ours, theirs)


def test_folders_that_do_not_go_together(tmp_path: Path) -> None:
    ours, theirs = two_systems(tmp_path)
    twice = write_tuned(tmp_path / "c", "runs/teacher", {"accuracy": right(0.8)})
    said = refused("are both teacher on sentiment with seed 0", ours, twice)
    assert f"'{ours}' and '{twice}'" in said
    other = write_tuned(tmp_path / "d", "older/teacher", {"accuracy": right(0.8)}, seed=1)
    refused("two models are called 'teacher': 'runs/teacher' and 'older/teacher'", ours, other)
    refused(r"unknown system 'techer'\. Did you mean 'teacher'", ours, theirs, reference="techer")
    first, second = (write_trained(tmp_path / where / "teacher") for where in ("x", "y"))
    refused("are both called 'teacher'", first, second)
    timed = [write_benchmark(tmp_path / name, ["runs/teacher"]) for name in ("s", "t")]
    refused("time 'teacher' twice in the same way", *timed)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused("does not exist", tmp_path / "nowhere")
    refused("nothing to report on", tmp_path / "empty")
    refused("nothing to report on in no folder")
    refused("nothing but baselines", write_baseline(tmp_path / "floor", "runs/teacher", {"accuracy": right(0.5)}))
    ours = write_tuned(tmp_path / "a", "runs/teacher", {"accuracy": right(0.8)})
    kept = json.loads((ours / "report.json").read_text())
    (tmp_path / "alone.json").write_text(json.dumps(kept))
    refused("name its folder, which holds examples.json too", tmp_path / "alone.json")
    kept["scores"][0]["value"] += 0.01
    (ours / "report.json").write_text(json.dumps(kept))
    refused("are not those of the rows in examples.json", ours)
    kept["models"][0]["base"] = None
    (ours / "report.json").write_text(json.dumps(kept))
    refused("does not say which model it was made from", ours)
    (ours / "report.json").write_text("{}")
    refused("cannot be used: not a report", ours)
    bare = write_tuned(tmp_path / "b", "runs/teacher", {"accuracy": right(0.8)})
    (bare / "examples.json").unlink()
    refused("has no examples.json", bare)


def test_fine_tuned_folders_keep_what_a_report_needs(tuned: dict[str, Path], student: Path, tmp_path: Path) -> None:
    for task, folder in tuned.items():
        kept = read_example_scores(folder)
        saved = Report.from_json((folder / "report.json").read_text(encoding="utf-8"))
        assert (kept.task, list(kept.parts)) == (task, ["test"])
        assert saved.models[0].base == str(student)
        assert saved.training is not None
        assert "cross_entropy" in saved.training.curves
        assert any(name.startswith("held-out") for name in saved.training.curves)
        assert saved.models[0].hidden_size == 16
    assert kept.parts["test"].fingerprint != references_fingerprint([])
    made = make_report([student, *tuned.values()], out=tmp_path / "report")
    assert made.models[0].name == "teacher"  # it taught the student; the student alone has scores
    assert list(dict.fromkeys(s.task for s in made.scores)) == ["sentiment", "ner", "nli", "qa"]
    distilled = next(source for source in made.sources if source.command == "distil")
    assert distilled.training is not None
    assert {"loss", "held-out loss"} <= set(distilled.training.curves)
    assert "Losses of student (distil)" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
