"""Several labels and numbers end to end: fine-tuned, scored, loaded in stock transformers, predicted, refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from affinage.data.task import load_task
from affinage.errors import InputError
from affinage.evaluation.example_scores import read_example_scores
from affinage.evaluation.metrics import metric
from affinage.models.checkpoint import load_task_model
from affinage.runtime.load import load
from affinage.workflows.baseline import baseline
from affinage.workflows.evaluate import evaluate
from affinage.workflows.finetune import finetune
from tiny import SENTENCES, save_tiny, tiny_model
from tiny_data import STEPS, rows_of, write_rows, write_task

PROBLEMS = {"topics": "multi_label_classification", "rating": "regression"}


@pytest.fixture(scope="module", params=PROBLEMS)
def tuned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path, Any]:
    task = request.param
    root = tmp_path_factory.mktemp(task)
    data = write_task(root / "data", task)
    out = root / "out"
    report = finetune(save_tiny(root, "bert"), task=task, data=data, out=out, overrides=STEPS, quiet=True)
    return task, data, out, report


def test_what_is_written_loads_in_stock_transformers(tuned: tuple[str, Path, Path, Any]) -> None:
    task, data, out, report = tuned
    config = json.loads((out / "config.json").read_text())
    assert (config["problem_type"], config["affinage_task"]) == (PROBLEMS[task], task)
    names = {"topics": {"0": "three", "1": "two"}, "rating": {"0": "value"}}[task]
    assert config["id2label"] == names
    assert [s.metric for s in report.scores if s.split == "test"] == list(load_task(task).metrics)
    assert all(metric(s.metric).lowest <= s.low <= s.value <= s.high <= 1 for s in report.scores)
    again = evaluate(out, data=data)
    assert [s.value for s in again.scores] == [s.value for s in report.scores if s.split == "test"]
    assert set(read_example_scores(out).parts["test"].rows) == set(load_task(task).metrics)

    model = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(**AutoTokenizer.from_pretrained(out)(SENTENCES[0], return_tensors="pt")).logits[0].numpy()
    (said,) = load(out).predict(SENTENCES[0], top_k=2)
    if task == "rating":
        assert said == {"value": pytest.approx(float(logits[0]), abs=1e-5)}
    else:
        chances = dict(zip(("three", "two"), 1 / (1 + np.exp(-logits.astype(np.float64))), strict=True))
        assert said["labels"] == sorted((n for n in chances if chances[n] >= 0.5), key=lambda n: -chances[n])
        assert {one["label"]: one["score"] for one in said["top"]} == pytest.approx(chances, abs=1e-5)


def test_the_stock_losses_are_the_papers(tmp_path: Path) -> None:
    """Mean squared error; mean binary cross-entropy over labels: from NumPy in float64."""
    for task, labels in (("rating", np.array([2.0, -1.5])), ("topics", np.array([[1.0, 0.0], [1.0, 1.0]]))):
        names = ("value",) if task == "rating" else ("a", "b")
        model = load_task_model(save_tiny(tmp_path, "bert"), load_task(task).kind, labels=names)
        ids = torch.tensor([[2, 9, 8, 3], [2, 7, 6, 3]])
        with torch.no_grad():
            output = model(input_ids=ids, labels=torch.from_numpy(labels).float())
        z = output.logits.numpy().astype(np.float64)
        expected = (
            ((z[:, 0] - labels) ** 2).mean()
            if task == "rating"
            else -(labels * np.log(1 / (1 + np.exp(-z))) + (1 - labels) * np.log(1 / (1 + np.exp(z)))).mean()
        )
        assert float(output.loss) == pytest.approx(expected, rel=1e-5)


def test_a_baseline_of_each(tmp_path: Path) -> None:
    for task in PROBLEMS:
        data = write_task(tmp_path / task, task)
        report = baseline(
            save_tiny(tmp_path, "bert"), task=task, data=data, out=tmp_path / f"{task}-b", overrides=STEPS, quiet=True
        )
        simple = {s.metric: s.value for s in report.scores if s.model == "majority"}
        if task == "rating":
            assert simple == {"pearson": 0, "spearman": 0}  # a constant correlates with nothing
        else:
            assert simple["subset_accuracy"] > 0


def test_a_head_for_another_problem_is_refused(tuned: tuple[str, Path, Path, Any], tmp_path: Path) -> None:
    task, _, out, _ = tuned
    with pytest.raises(InputError, match=f"fine-tuned for {PROBLEMS[task]}.*this task is single_label_classification"):
        evaluate(out, task="sentiment", data=write_task(tmp_path / "s", "sentiment"))
    with pytest.raises(InputError, match=f"is a {load_task(task).kind} model"):
        load(out, task="sentiment")
    other = "rating" if task == "topics" else "topics"
    with pytest.raises(InputError, match=f"this task is {PROBLEMS[other]}"):
        evaluate(out, task=other, data=write_task(tmp_path / "o", other))


def test_nothing_to_learn_is_refused(tmp_path: Path) -> None:
    model = save_tiny(tmp_path, "bert")
    same = write_rows(tmp_path / "same" / "train.jsonl", [{**row, "label": 3} for row in rows_of("rating")])
    with pytest.raises(InputError, match="every row has the value 3; there is nothing to learn"):
        finetune(model, task="rating", data=same, out=tmp_path / "a", overrides=STEPS, quiet=True)
    none = write_rows(tmp_path / "none" / "train.jsonl", [{**row, "labels": []} for row in rows_of("topics")])
    with pytest.raises(InputError, match="no row has a label"):
        finetune(model, task="topics", data=none, out=tmp_path / "b", overrides=STEPS, quiet=True)


def test_models_of_others_say_what_they_are_by_their_config(tmp_path: Path) -> None:
    tiny_model("bert", "sequence", num_labels=1).save_pretrained(tmp_path / "cross-encoder")
    AutoTokenizer.from_pretrained(save_tiny(tmp_path, "bert")).save_pretrained(tmp_path / "cross-encoder")
    predictor = load(tmp_path / "cross-encoder")
    assert predictor.kind == "regression"
    both = predictor.predict([SENTENCES[0], (SENTENCES[0], SENTENCES[1])])
    assert both[0]["value"] != both[1]["value"]
    with pytest.raises(InputError, match="input 2: expected a pair"):
        predictor.predict(["oui", 3])
