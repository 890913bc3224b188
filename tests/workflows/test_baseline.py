"""The baseline end to end on tiny models: its two answers, what is trained, what is written, what is refused."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from affinage.data.examples import SpanExample, TextExample, TokenExample, read_examples
from affinage.data.task import load_task
from affinage.errors import InputError
from affinage.evaluation.evaluator import references
from affinage.evaluation.example_scores import read_example_scores, references_fingerprint
from affinage.evaluation.metrics import metric
from affinage.report.report import Report
from affinage.workflows.baseline import baseline, majority
from tiny import ARCHITECTURES, save_tiny
from tiny_data import STEPS, TASKS, rows_of, write_rows, write_task


def measure(model: Path, task: str, data: Path, out: Path, **more: Any) -> Report:
    overrides = {**STEPS, **more.pop("overrides", {})}
    return baseline(model, task=task, data=data, out=out, overrides=overrides, quiet=True, **more)


def by_kind(report: Report) -> dict[tuple[str, str], float]:
    return {(score.model, score.metric): score.value for score in report.scores}


class Watch(TrainerCallback):
    """The weights before training and after the last step."""

    before: dict[str, Tensor]
    after: dict[str, Tensor]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.before = {name: value.clone() for name, value in kwargs["model"].state_dict().items()}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.after = {name: value.clone() for name, value in kwargs["model"].state_dict().items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("task", TASKS)
def test_both_answers_are_scored_and_only_the_head_is_trained(tmp_path: Path, task: str, architecture: str) -> None:
    model, data, out = save_tiny(tmp_path, architecture), write_task(tmp_path / "data", task), tmp_path / "out"
    watch = Watch()
    report = measure(model, task, data, out, overrides={"training.warmup": "0"}, callbacks=[watch])

    changed = {name for name, value in watch.before.items() if not torch.equal(value, watch.after[name])}
    assert changed == {name for name in watch.before if ".embeddings." not in name}

    names = load_task(task).metrics
    kinds = ("majority", "frozen embeddings")
    assert [(s.model, s.metric) for s in report.scores] == [(kind, name) for kind in kinds for name in names]
    for score in report.scores:
        assert score.low is not None and score.high is not None
        assert 0 <= score.low <= score.value <= score.high <= 1
        assert (score.task, score.split, score.n, score.baseline) == (task, "test", 8, None)
        assert score.seeds == (() if score.model == "majority" else (0,))
    assert report.command == "baseline"
    (entry,) = report.models
    assert (entry.base, entry.layers, entry.name) == (str(model), 0, "frozen embeddings")
    assert report.training is not None and report.training.steps == 2

    assert {path.name for path in out.iterdir()} == {"report.json", "examples.json", "runs"}
    assert not (tmp_path / "out.partial").exists()
    assert Report.from_json((out / "report.json").read_text(encoding="utf-8")) == report
    kept = read_example_scores(out)
    expected = references(read_examples(load_task(task), data / "test.jsonl"))
    assert (kept.task, list(kept.parts)) == (task, ["test"])
    assert kept.parts["test"].fingerprint == references_fingerprint(expected)
    scores = by_kind(report)
    better = max(kinds, key=lambda kind: scores[kind, names[0]])  # the first of equals
    for name, rows in kept.parts["test"].rows.items():
        assert float(metric(name).aggregate(rows.sum(axis=0))) == pytest.approx(scores[better, name])


def texts(labels: str) -> list[dict[str, Any]]:
    """One row a letter: p positive, n negative; the text gives the label away."""
    said = {"p": ("Le train est beau.", 1), "n": ("La pluie est noire.", 0)}
    return [{"text": said[letter][0], "label": said[letter][1]} for letter in labels]


def parts(folder: Path, **labels: str) -> Path:
    for part, letters in labels.items():
        write_rows(folder / f"{part}.jsonl", texts(letters))
    return folder


def test_the_majority_is_that_of_the_training_part(tmp_path: Path) -> None:
    data = parts(tmp_path / "data", train="ppnpp", valid="pn", test="nnnp")
    report = measure(save_tiny(tmp_path), "sentiment", data, tmp_path / "out")
    scores = by_kind(report)
    # Always positive: 1 of 4 right; F1 of positive 2·1 / (4 + 1), of negative 0.
    assert scores["majority", "accuracy"] == 0.25
    assert scores["majority", "macro_f1"] == pytest.approx(0.2)


def test_majority_of_each_kind() -> None:
    train = [TextExample("", label, "") for label in ("b", "c", "c", "b", "a")]
    asked = [TextExample("", "a", ""), TextExample("", "c", "")]
    assert majority(train, asked, ("a", "b", "c")) == ["b", "b"]
    words = TokenExample(("Claire", "rit"), ("B-PER", "O"), "")
    assert majority([words], [words], ("O", "B-PER", "I-PER")) == [("O", "O")]
    question = SpanExample("1", "Qui ?", "Claire rit.", (("Claire", 0),), "")
    assert majority([question], [question], ()) == [""]


def test_the_better_of_the_two_is_kept(tmp_path: Path) -> None:
    letters = "pn" * 8
    data = parts(tmp_path / "data", train=letters, valid=letters, test=letters)
    overrides = {"training.max_steps": "30", "training.learning_rate": "0.05"}
    report = measure(save_tiny(tmp_path), "sentiment", data, tmp_path / "out", overrides=overrides)
    scores = by_kind(report)
    assert (scores["majority", "accuracy"], scores["frozen embeddings", "accuracy"]) == (0.5, 1.0)
    rows = read_example_scores(tmp_path / "out").parts["test"].rows["accuracy"]
    assert np.array_equal(rows, np.ones((16, 2)))


def test_of_two_equals_the_majority_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing to tell the texts apart by: the head answers one label, and here the majority is made to be the other.
    rows = [{"text": "Le train.", "label": i % 2} for i in range(8)]
    for part in ("train", "valid", "test"):
        write_rows(tmp_path / "data" / f"{part}.jsonl", rows)
    model = save_tiny(tmp_path)
    for label, right in (("negative", [1, 0] * 4), ("positive", [0, 1] * 4)):
        monkeypatch.setattr(
            "affinage.workflows.baseline.majority", lambda train, examples, labels, label=label: [label] * len(examples)
        )
        report = measure(model, "sentiment", tmp_path / "data", tmp_path / label)
        assert {score.value for score in report.scores if score.metric == "accuracy"} == {0.5}
        assert read_example_scores(tmp_path / label).parts["test"].rows["accuracy"][:, 0].tolist() == right


def test_without_a_test_part_the_valid_part_is_scored(tmp_path: Path) -> None:
    model = save_tiny(tmp_path)
    report = measure(model, "sentiment", parts(tmp_path / "two", train="pnpn", valid="pnp"), tmp_path / "one")
    assert {(score.split, score.n) for score in report.scores} == {("valid", 3)}
    assert list(read_example_scores(tmp_path / "one").parts) == ["valid"]
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("sentiment"))
    report = measure(model, "sentiment", rows, tmp_path / "other")
    assert {score.split for score in report.scores} == {"held-out train"}


def test_the_head_learns_faster_unless_told_otherwise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, data = save_tiny(tmp_path), write_task(tmp_path / "data", "sentiment")
    with caplog.at_level(logging.INFO, logger="affinage"):
        measure(model, "sentiment", data, tmp_path / "one")
        assert "only the head is trained, on frozen embeddings, at a learning rate of 0.003" in caplog.text
        measure(model, "sentiment", data, tmp_path / "two", overrides={"training.learning_rate": "0.02"})
        assert "at a learning rate of 0.02" in caplog.text
        measure(model, "sentiment", data, tmp_path / "three", overrides={"stages.0.training.learning_rate": "0.03"})
        assert "at a learning rate of 0.03" in caplog.text


class StopAfter(TrainerCallback):
    """Ctrl-C in the middle of a run."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("task", ["sentiment", "ner"])
def test_an_interrupted_run_resumes_to_the_same_scores(tmp_path: Path, task: str) -> None:
    model, data = save_tiny(tmp_path, "bert"), write_task(tmp_path / "data", task)
    overrides = {"training.max_steps": "6", "training.evaluations": "3"}
    whole, cut = Watch(), Watch()
    report = measure(model, task, data, tmp_path / "whole", overrides=overrides, callbacks=[whole])
    with pytest.raises(KeyboardInterrupt):
        measure(model, task, data, tmp_path / "cut", overrides=overrides, callbacks=[StopAfter(3)])
    assert not (tmp_path / "cut").exists()
    resumed = measure(model, task, data, tmp_path / "cut", overrides=overrides, callbacks=[cut])
    assert resumed.scores == report.scores
    assert all(torch.equal(value, cut.after[name]) for name, value in whole.after.items())


def test_a_fine_tuning_left_unfinished_is_not_taken_for_a_baseline(tmp_path: Path) -> None:
    from affinage.workflows.finetune import finetune

    model, data = save_tiny(tmp_path), write_task(tmp_path / "data", "sentiment")
    with pytest.raises(KeyboardInterrupt):
        finetune(model, task="sentiment", data=data, out=tmp_path / "out", overrides=STEPS, quiet=True,
                 callbacks=[StopAfter(1)])  # fmt: skip
    with pytest.raises(InputError, match="holds an unfinished run with another recipe, verb"):
        measure(model, "sentiment", data, tmp_path / "out")


def test_what_cannot_be_used_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    model, data = save_tiny(tmp_path), write_task(tmp_path / "data", "sentiment")
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "out"
    for more, match in (
        ({"task": "sentimant"}, "unknown task 'sentimant'. Did you mean 'sentiment'"),
        ({"recipe": "distilcamembert"}, "is for distil with"),
        ({"overrides": {"training.max_step": "3"}}, "unknown key 'max_step'"),
        ({"model": tmp_path / "none"}, "there is no such folder"),
        ({"data": tmp_path / "none"}, "none"),
        ({"out": tmp_path / "data"}, "exists; choose another --out"),
    ):
        given: dict[str, Any] = {"model": model, "task": "sentiment", "data": data, "out": out, **more}
        with pytest.raises(InputError, match=match):
            measure(given.pop("model"), given.pop("task"), given.pop("data"), given.pop("out"), **given)
        assert sorted(tmp_path.rglob("*")) == before


def test_examples_json_is_as_the_page_says(tmp_path: Path) -> None:
    model, data = save_tiny(tmp_path), write_task(tmp_path / "data", "ner")
    measure(model, "ner", data, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "examples.json").read_text(encoding="utf-8"))
    assert (written["schema_version"], written["task"], list(written["parts"])) == (1, "ner", ["test"])
    assert {name: len(rows) for name, rows in written["parts"]["test"]["metrics"].items()} == {
        "entity_f1": 8,
        "token_overlap_f1": 8,
    }
