"""Task-specific distillation end to end on tiny models: every kind of task, resume, and what is refused first."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, TrainerCallback

from affinage.errors import DataError, InputError
from affinage.recipe import Recipe
from affinage.report.report import Report
from affinage.workflows.distil_task import distil_task
from affinage.workflows.evaluate import evaluate
from affinage.workflows.systems import gather
from tiny import SENTENCES, save_tiny
from tiny_data import STEPS, same_weights, write_corpus, write_rows, write_task
from tiny_tasks import HEADS, LABELS, tuned_teacher

TINYBERT = """
name: mine
source: original
kind: distil
student: {num_hidden_layers: 2}
stages:
- name: intermediate
  on: task
  losses: [{name: hidden_mse}, {name: attention_score_mse}]
  training: {schedule: constant, warmup: 0}
- name: prediction
  on: task
  losses: [{name: task_soft_kl, params: {temperature: 1.0}}, {name: task_labels}]
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(TINYBERT)
    return path


def run(teacher: Path, task: str, data: Path, out: Path, **more: Any) -> Report:
    overrides = {**STEPS, **more.pop("overrides", {})}
    return distil_task(teacher, task=task, data=data, out=out, overrides=overrides, quiet=True, **more)


@pytest.mark.parametrize("task", LABELS)
def test_two_stages_on_every_kind_of_task(tmp_path: Path, mine: Path, task: str) -> None:
    data, out = write_task(tmp_path / "data", task), tmp_path / "out"
    report = run(tuned_teacher(tmp_path, task), task, data, out, recipe=mine)
    assert {(s.model, s.split) for s in report.scores} == {
        (m, part) for m in ("student", "teacher") for part in ("valid", "test")
    }
    assert {(c.model, c.reference) for c in report.comparisons} == {("student", "teacher")}
    assert report.training is not None and report.training.steps == 4
    assert {"intermediate: hidden_mse", "prediction: task_soft_kl"} <= set(report.training.losses)
    assert [m.layers for m in report.models] == [2, 4]
    config = json.loads((out / "config.json").read_text())
    assert config["affinage_task"] == task and config["affinage_layers"] == [0, 3]
    assert sorted(p.name for p in (out / "runs").iterdir()) == ["stage-1", "stage-2"]
    assert not (out / "teacher").exists() and not (tmp_path / "out.partial").exists()
    assert list(gather([out]).scored[task]) == [f"camembert-{HEADS[task]} by mine"]
    again = evaluate(out, data=data, split="test")
    assert [s.value for s in again.scores] == [
        s.value for s in report.scores if (s.model, s.split) == ("student", "test")
    ]


@pytest.mark.parametrize(
    ("task", "loss"),
    [("nli", "class_soft_cross_entropy_as_released"), ("rating", "regression_hard_labels")],
)
def test_tinyberts_last_stage_as_released(tmp_path: Path, task: str, loss: str) -> None:
    """As docs/recipes.md says to choose it: its loss alone trains the last of the recipe's stages."""
    start = {"student.init": "layers", "training.warmup": "0"}
    released = {**start, "stages.2.losses": f"[{{name: {loss}}}]"}
    out, plain = tmp_path / "out", tmp_path / "plain"
    data, teacher = write_task(tmp_path / "data", task), tuned_teacher(tmp_path, task, "bert")
    report = run(teacher, task, data, out, recipe="tinybert-6", overrides=released)
    assert report.training is not None
    told = {name for name in report.training.losses if name.startswith("task_prediction: ")}
    assert told == {"task_prediction: loss", f"task_prediction: {loss}"}
    run(teacher, task, data, plain, recipe="tinybert-6", overrides=start)
    assert not same_weights(out, plain)


@pytest.mark.parametrize(
    ("recipe", "layers"),
    [("task", [0, 3]), ("patient-kd", [0, 1]), ("tinybert-6", [1, 3]), ("tinybert-task", [1, 3])],
)
def test_the_recipes_that_come_with_affinage(tmp_path: Path, recipe: str, layers: list[int]) -> None:
    data, out = write_task(tmp_path / "data", "nli"), tmp_path / "out"
    start = {"overrides": {"student.init": "layers"}}
    report = run(tuned_teacher(tmp_path, "nli", "bert"), "nli", data, out, recipe=recipe, **start)
    assert json.loads((out / "config.json").read_text())["affinage_layers"] == layers
    assert report.training is not None
    assert all(loss == loss for loss in report.training.losses.values())
    assert all(stage.on == "task" for stage in Recipe.load(out / "recipe.yaml").stages)


@pytest.mark.parametrize(
    ("architecture", "overrides", "expected"),
    [
        ("camembert", {}, "tinybert-task"),
        ("camembert", {"student.num_hidden_layers": "3"}, "task"),  # of 4: no equal distances
        ("deberta-v2", {}, "task"),  # attention scores that hold positions too
    ],
)
def test_the_default_is_the_better_recipe_that_fits(
    tmp_path: Path, architecture: str, overrides: dict[str, str], expected: str
) -> None:
    data, out = write_task(tmp_path / "data", "sentiment"), tmp_path / "out"
    run(tuned_teacher(tmp_path, "sentiment", architecture), "sentiment", data, out, overrides=overrides)
    assert Recipe.load(out / "recipe.yaml").name == expected


def test_the_default_for_several_teachers_averages_their_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, out, teacher = (
        write_task(tmp_path / "data", "sentiment"),
        tmp_path / "out",
        tuned_teacher(tmp_path, "sentiment"),
    )
    caplog.set_level(logging.INFO, logger="affinage")
    run(teacher, "sentiment", data, out, more_teachers=[teacher])
    assert Recipe.load(out / "recipe.yaml").name == "task"
    assert "recipe 'task' is taken, for 'tinybert-task' does not fit" in caplog.text


def test_a_teacher_that_is_not_tuned_is_tuned_first_and_kept(tmp_path: Path, mine: Path) -> None:
    (tmp_path / "tune.yaml").write_text(
        "name: t\nsource: original\nkind: finetune\nstages:\n- {name: t, training: {max_steps: 2, row_length: 48}}\n"
    )
    data, out = write_task(tmp_path / "data", "sentiment"), tmp_path / "out"
    report = run(save_tiny(tmp_path), "sentiment", data, out, recipe=mine, teacher_recipe=tmp_path / "tune.yaml")
    assert report.models[1].layers == 4
    teacher = Report.from_json((out / "teacher" / "report.json").read_text())
    assert teacher.command == "finetune"
    theirs = {(s.split, s.metric): s.value for s in report.scores if s.model == "teacher"}
    assert theirs == {(s.split, s.metric): s.value for s in teacher.scores}
    stock = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32)
    assert stock.config.id2label == {0: "negative", 1: "positive"}


class StopAfter(TrainerCallback):
    """Ctrl-C in the middle of a run, harder than the real one: nothing is saved on the way out."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [3, 4, 6])
def test_an_interrupted_run_resumes_to_the_same_student(tmp_path: Path, mine: Path, stop: int) -> None:
    """In the middle of the first stage, at its end, in the second; unlabelled text and a projection among it."""
    data = write_task(tmp_path / "data", "sentiment")
    (tmp_path / "more.txt").write_text("\n".join(SENTENCES))
    teacher = tuned_teacher(tmp_path, "sentiment")
    settings: dict[str, Any] = {
        "recipe": mine,
        "unlabelled": tmp_path / "more.txt",
        "overrides": {"training.max_steps": "4", "training.evaluations": "2"},
    }
    whole = run(teacher, "sentiment", data, tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        run(teacher, "sentiment", data, tmp_path / "cut", **settings, callbacks=[StopAfter(stop)])
    resumed = run(teacher, "sentiment", data, tmp_path / "cut", **settings)
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
    assert [s.value for s in whole.scores] == [s.value for s in resumed.scores]
    assert whole.training is not None and resumed.training is not None
    assert whole.training.losses == resumed.training.losses
    assert whole.training.tokens == resumed.training.tokens


def test_a_student_learns_what_the_teacher_says_of_text_without_labels(tmp_path: Path) -> None:
    """Labels say one thing, the teacher another: with soft labels alone the student follows the teacher."""
    teacher = tuned_teacher(tmp_path, "sentiment")
    data = write_task(tmp_path / "data", "sentiment")
    losses = {"losses": "[{name: task_soft_kl, params: {temperature: 1.0}}]"}
    (tmp_path / "more.txt").write_text("\n".join(SENTENCES))
    report = run(
        teacher,
        "sentiment",
        data,
        tmp_path / "out",
        recipe="task",
        unlabelled=tmp_path / "more.txt",
        overrides={**losses, "training.max_steps": "30", "training.learning_rate": "0.003"},
    )
    assert report.training is not None
    curve = report.training.curves["task_soft_kl"]
    assert curve[-1][1] < curve[0][1]


def refused(tmp_path: Path, match: str, teacher: Path, *, task: str = "sentiment", **more: Any) -> None:
    """One InputError before anything is written."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=match):
        run(teacher, task, more.pop("data", tmp_path / "data"), tmp_path / "out", **more)
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_input_is_refused_before_training(tmp_path: Path, mine: Path) -> None:
    write_task(tmp_path / "data", "sentiment")
    ner = write_task(tmp_path / "ner", "ner")
    teacher = tuned_teacher(tmp_path, "sentiment")
    general = save_tiny(tmp_path)
    turned = tuned_teacher(tmp_path / "turned", "sentiment", id2label={0: "positive", 1: "negative"})
    other = tuned_teacher(tmp_path / "other", "sentiment", id2label={0: "bad", 1: "good"})
    noted = tuned_teacher(tmp_path / "noted", "sentiment", affinage_task="nli")
    bert = save_tiny(tmp_path, "bert")
    refused(tmp_path, "numbers its labels positive, negative, task 'sentiment' and the data negative, posit", turned)
    refused(tmp_path, "knows the labels bad, good, the data has negative, positive besides", other)
    refused(tmp_path, "is fine-tuned for task 'nli', not 'sentiment'", noted)
    refused(tmp_path, "is a CamembertForSequenceClassification; this task needs", teacher, task="ner", data=ner)
    refused(tmp_path, "has another vocabulary than the teacher", teacher, init_from=bert)
    refused(tmp_path, r"asks for teacher layers \[0, 9\]", teacher, overrides={"student.layers": "[0, 9]"})
    refused(
        tmp_path, "no multiple of the student's 3", teacher, recipe=mine, overrides={"student.num_hidden_layers": "3"}
    )
    refused(tmp_path, "is not fine-tuned for task 'sentiment': only the first", teacher, more_teachers=[general])
    refused(
        tmp_path, "compares with the hidden_states, keys, queries of one", teacher, recipe=mine, more_teachers=[turned]
    )
    refused(tmp_path, "teacher '.*turned.*' numbers its labels", teacher, more_teachers=[turned])
    refused(tmp_path, "no stage on task, which --task and --data would feed", teacher, recipe="distilcamembert")
    refused(tmp_path, "is for finetune; distil takes one", teacher, recipe="finetune")
    refused(
        tmp_path, "vocabulary logits, and a stage on task has none", teacher, overrides={"losses": "[{name: soft_kl}]"}
    )
    refused(tmp_path, "is for distil with", general, teacher_recipe="task")
    refused(
        tmp_path,
        "leave it out, or leave --from out",
        teacher,
        init_from=general,
        overrides={"student.num_hidden_layers": "3"},
    )
    shallow = save_tiny(tmp_path / "shallow", "camembert", "mlm", num_attention_heads=4)
    refused(
        tmp_path,
        "the student has 4, the teacher 2",
        teacher,
        recipe=mine,
        init_from=shallow,
        overrides={"student": "{}"},
    )


def test_words_are_found_by_name_in_whatever_order_the_teacher_has_them(tmp_path: Path) -> None:
    """A tag for what begins within an entity may be missing, too: no row has one."""
    ner = write_task(tmp_path / "ner", "ner")
    lines = [line for part in ("train", "valid", "test") for line in (ner / f"{part}.jsonl").read_text().splitlines()]
    seen = {tag for line in lines for tag in json.loads(line)["tags"]}
    names = [*sorted(seen - {"O"}, reverse=True), "O"]
    teacher = tuned_teacher(tmp_path, "ner", id2label=dict(enumerate(names)))
    report = run(teacher, "ner", ner, tmp_path / "out", overrides={"training.max_steps": "2"}, recipe="task")
    student = AutoModelForTokenClassification.from_pretrained(tmp_path / "out")
    assert list(student.config.id2label.values()) == names
    held = evaluate(tmp_path / "out", data=ner).scores
    assert [s.value for s in held] == [s.value for s in report.scores if (s.model, s.split) == ("student", "test")]


@pytest.mark.parametrize(
    ("task", "loss"),
    [("ner", "class_soft_kl"), ("rating", "class_soft_kl"), ("sentiment", "token_soft_kl"),
     ("sentiment", "regression_hard_labels"), ("qa", "multi_label_soft_kl")],
)  # fmt: skip
def test_a_loss_of_another_kind_of_task_is_refused(tmp_path: Path, task: str, loss: str) -> None:
    write_task(tmp_path / "data", task)
    losses = {"stages.0.losses": f"[{{name: {loss}}}]"}
    refused(tmp_path, f"loss '{loss}' is on the logits of", tuned_teacher(tmp_path, task), task=task, overrides=losses,
            recipe="task")  # fmt: skip


def test_one_baseline_stands_on_the_page(tmp_path: Path) -> None:
    """What is commonest in the training rows, there as where the two are compared."""
    rows = [{"text": f"{SENTENCES[i % 10]} {i}", "label": int(i % 3 > 0)} for i in range(30)]
    for part, label in (("train", 1), ("valid", 1), ("test", 0)):
        write_rows(
            tmp_path / "data" / f"{part}.jsonl",
            [*rows[:12], *({"text": f"{part} {i}", "label": label} for i in range(20))],
        )
    overrides = {"guards.bad_teacher": "off", "training.max_steps": "2"}
    report = run(
        tuned_teacher(tmp_path, "sentiment"), "sentiment", tmp_path / "data", tmp_path / "out", overrides=overrides
    )
    said = {s.split: s.baseline for s in report.scores if s.metric == "accuracy"}
    assert said == {"valid": 28 / 32, "test": 8 / 32}
    assert report.comparisons[0].baseline == said["test"]


def test_text_for_a_recipe_that_reads_none_is_refused(tmp_path: Path) -> None:
    write_task(tmp_path / "data", "sentiment")
    texts = write_corpus(tmp_path / "corpus")
    teacher = tuned_teacher(tmp_path, "sentiment")
    refused(
        tmp_path, "leave --corpus out, or name a recipe with stages on both", teacher, corpus=[texts], recipe="task"
    )


def test_a_teacher_whose_head_was_never_tuned_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It says the same of every text, or nothing that goes with the labels."""
    data = write_task(tmp_path / "data", "sentiment")
    rows = [{"text": f"{SENTENCES[i % 10]} {i}", "label": int(i % 3 > 0)} for i in range(60)]
    write_rows(data / "valid.jsonl", rows)
    teacher = tuned_teacher(tmp_path, "sentiment")
    refused(tmp_path, "always giving the commonest answer .*guards.bad_teacher=warn", teacher)
    with caplog.at_level(logging.WARNING, "affinage"):
        run(teacher, "sentiment", data, tmp_path / "out", overrides={"guards.bad_teacher": "warn"})
    assert "always giving the commonest answer" in caplog.text


def test_unlabelled_text_that_cannot_be_used(tmp_path: Path) -> None:
    data = write_task(tmp_path / "data", "nli")
    teacher = tuned_teacher(tmp_path, "nli")
    (tmp_path / "more.txt").write_text("Une phrase.\n")
    with pytest.raises(
        DataError, match="a line holds one text, and an example of task 'nli' has premise and hypothesis"
    ):
        run(teacher, "nli", data, tmp_path / "out", unlabelled=tmp_path / "more.txt")
    rows = write_rows(tmp_path / "more.jsonl", [{"premise": "Une phrase.", "hypothesis": " "}])
    with pytest.raises(DataError, match=r"more\.jsonl:1: 'hypothesis' is blank"):
        run(teacher, "nli", data, tmp_path / "out", unlabelled=rows)


def test_unlabelled_rows_may_keep_the_tasks_own_names(tmp_path: Path) -> None:
    rows = [{"avis": sentence, "label": i % 2} for i, sentence in enumerate(SENTENCES)]
    data = tmp_path / "data"
    for part in ("train", "valid", "test"):
        write_rows(data / f"{part}.jsonl", rows)
    teacher, overrides = tuned_teacher(tmp_path, "sentiment"), {"training.max_steps": "2"}
    for name, column in (("own", "text"), ("same", "avis")):
        more = write_rows(tmp_path / f"{name}.jsonl", [{column: sentence} for sentence in SENTENCES])
        run(teacher, "sentiment", data, tmp_path / f"out-{name}", unlabelled=more, columns={"text": "avis"},
            overrides=overrides)  # fmt: skip
    assert same_weights(tmp_path / "out-own", tmp_path / "out-same")


def test_a_general_student_goes_on(tmp_path: Path, mine: Path) -> None:
    data = write_task(tmp_path / "data", "sentiment")
    narrow = save_tiny(
        tmp_path / "narrow", "camembert", "mlm", num_hidden_layers=2, hidden_size=8, intermediate_size=16
    )
    out = tmp_path / "out"
    report = run(
        tuned_teacher(tmp_path, "sentiment"),
        "sentiment",
        data,
        out,
        recipe=mine,
        init_from=narrow,
        overrides={"student": "{}"},
    )
    assert (report.models[0].hidden_size, report.models[1].hidden_size) == (8, 16)
    assert "map" not in " ".join(AutoModelForSequenceClassification.from_pretrained(out).state_dict())


def test_a_student_tuned_on_another_task_goes_on_with_a_new_head(
    tmp_path: Path, mine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As RTE after MNLI; of as many labels, which the head would be kept for, they have to be the same."""
    data, teacher = write_task(tmp_path / "data", "sentiment"), tuned_teacher(tmp_path, "sentiment")
    start: dict[str, Any] = {"recipe": mine, "overrides": {"student": "{}"}}
    caplog.set_level(logging.INFO, logger="affinage")
    three = save_tiny(tmp_path / "three", "camembert", "sequence", id2label=dict(enumerate("abc")), num_hidden_layers=2)
    run(teacher, "sentiment", data, tmp_path / "student", init_from=three, **start)
    assert f"the student's head is new: '{three}' was tuned for a, b, c" in caplog.text
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    assert stock.config.id2label == {0: "negative", 1: "positive"}
    turned = save_tiny(tmp_path / "two", "camembert", "sequence", id2label={0: "positive", 1: "negative"})
    refused(tmp_path, "has a head for the labels positive, negative", teacher, init_from=turned, **start)
