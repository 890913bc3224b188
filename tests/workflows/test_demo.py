"""The demo, whole, with tiny models and data: what it writes, how it goes on, what it refuses."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

import affinage.workflows.demo_steps as demo_steps
from affinage.errors import DataError, InputError
from affinage.models.checkpoint import load_tokenizer
from affinage.report.report import Report
from affinage.workflows.demo import demo, shipped_data, task_folders
from affinage.workflows.demo_plan import Plan, measured_speed, plan
from tiny import save_tiny, tiny_model
from tiny_data import TASKS, write_corpus, write_rows, write_task

MINUTES = 0.05


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    folder = save_tiny(tmp_path, "camembert", "mlm")
    return folder.rename(tmp_path / "teacher")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for task in ("sentiment", "ner"):
        write_task(tmp_path / "data" / task, task)
    write_corpus(tmp_path / "data" / "corpus", lines=200)
    return tmp_path / "data"


def test_the_whole_job(teacher: Path, data: Path, tmp_path: Path) -> None:
    report = demo(out=tmp_path / "out", data=data, teacher=teacher, minutes=MINUTES, quiet=True)
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        *("report.json", "report.md", "report.html", "predictions.md"),
        *("teacher", "student", "tasks", "benchmark"),
    }
    assert {path.name for path in (out / "tasks").iterdir()} == {
        f"{system}-{task}" for system in ("teacher", "student", "baseline") for task in ("sentiment", "ner")
    }
    assert not (tmp_path / "out.partial").exists()
    # Loads in stock transformers, and nothing speaks of the folder it was made in.
    student = AutoModelForMaskedLM.from_pretrained(out / "student")
    assert student.config.num_hidden_layers < AutoModelForMaskedLM.from_pretrained(teacher).config.num_hidden_layers
    AutoModelForSequenceClassification.from_pretrained(out / "tasks" / "student-sentiment")
    for path in out.rglob("*"):
        assert path.suffix not in {".json", ".md", ".html"} or ".partial" not in path.read_text(encoding="utf-8")
    assert report == Report.from_json((out / "report.json").read_text(encoding="utf-8"))
    assert [model.name for model in report.models] == ["teacher", "student"]
    assert {(c.model, c.task) for c in report.comparisons} == {("student", "sentiment"), ("student", "ner")}
    assert {score.task for score in report.scores} == {"sentiment", "ner"}
    assert report.latency
    assert report.speedups
    said = (out / "predictions.md").read_text(encoding="utf-8")
    assert "Hélène Carrier" in said
    assert "moulin" not in said
    with pytest.raises(InputError, match="exists"):
        demo(out=out, data=data, teacher=teacher, minutes=MINUTES, quiet=True)


def test_an_interrupted_demo_goes_on(
    teacher: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    shutil.rmtree(data / "ner")
    monkeypatch.setattr(demo_steps, "benchmark", lambda models, *, out, **_: out.mkdir())
    with monkeypatch.context() as patched:
        patched.setattr(demo_steps, "baseline", interrupted)
        with pytest.raises(KeyboardInterrupt):
            demo(out=tmp_path / "out", data=data, teacher=teacher, minutes=MINUTES, quiet=True)
    assert not (tmp_path / "out").exists()
    made = tmp_path / "out.partial" / "work" / "student" / "model.safetensors"
    before = made.stat().st_mtime_ns
    with pytest.raises(InputError, match="another seed"):
        demo(out=tmp_path / "out", data=data, teacher=teacher, minutes=MINUTES, seed=1, quiet=True)
    assert made.stat().st_mtime_ns == before
    demo(out=tmp_path / "out", data=data, teacher=teacher, minutes=MINUTES, quiet=True)
    assert (tmp_path / "out" / "student" / "model.safetensors").stat().st_mtime_ns == before


def test_without_a_corpus_the_training_texts_are_one(tmp_path: Path) -> None:
    sets = task_folders(shipped_data())
    text = demo_steps.corpus_of(sets, tmp_path / "corpus", aside=tmp_path / "corpus.txt")
    lines = text.read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) > 600
    rows = (json.loads(line) for line in (sets["qa"] / "test.jsonl").read_text(encoding="utf-8").splitlines())
    assert not {row["context"] for row in rows} & set(lines)
    given = tmp_path / "corpus"
    given.mkdir()
    assert demo_steps.corpus_of(sets, given, aside=tmp_path / "other.txt") == given


def test_a_corpus_that_is_too_short_is_refused(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_rows(
            tmp_path / "sentiment" / f"{part}.jsonl", [{"text": "Bien.", "label": 1}, {"text": "Mal.", "label": 0}]
        )
    with pytest.raises(InputError, match="too few to distil on"):
        demo_steps.corpus_of(task_folders(tmp_path), tmp_path / "corpus", aside=tmp_path / "corpus.txt")


def test_user_mistakes_leave_nothing_behind(teacher: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="there is no such folder"):
        demo(out=out, data=tmp_path / "nowhere", teacher=teacher, quiet=True)
    with pytest.raises(InputError, match="one is enough"):
        demo(out=out, data=teacher, teacher=teacher, quiet=True)
    with pytest.raises(InputError, match="minutes"):
        demo(out=out, data=data, teacher=teacher, minutes=0, quiet=True)
    (data / "ner" / "test.jsonl").unlink()
    with pytest.raises(InputError, match="has no test part"):
        demo(out=out, data=data, teacher=teacher, quiet=True)
    (data / "ner" / "test.jsonl").write_text('{"tokens": ["a"]}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"test\.jsonl:1"):
        demo(out=out, data=data, teacher=teacher, quiet=True)
    with pytest.raises(InputError, match="unknown shipped model"):
        demo(out=out, teacher="shipped:techer", quiet=True)
    assert not out.exists()
    assert not out.with_name("out.partial").exists()


def test_the_shipped_sets_are_what_it_takes() -> None:
    assert set(task_folders(shipped_data())) == set(TASKS)


def test_time_is_shared_out(data: Path) -> None:
    model = tiny_model("camembert", "mlm")
    before = [parameter.clone() for parameter in model.parameters()]
    assert measured_speed(model) > 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(map(torch.equal, before, model.parameters()))


def test_more_minutes_never_train_less(teacher: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("affinage.workflows.demo_plan.measured_speed", lambda model: 100.0)
    tokenizer, model = load_tokenizer(teacher), tiny_model("camembert", "mlm")
    plans: list[Plan] = [
        plan(model, tokenizer, task_folders(data), minutes=minutes, distil_tokens=500) for minutes in (0.1, 1, 10, 100)
    ]
    for short, long in pairwise(plans):
        assert long.distil_steps >= short.distil_steps
        assert all(long.tune_steps[task] >= steps for task, steps in short.tune_steps.items())
    assert plans[-1].tune_steps == {"sentiment": 2, "ner": 8}  # all the epochs there are: 4 and 16 of 8 rows by 16
    assert plans[2].distil_steps == int((600 - 60 - 2 * 12) * 0.25 * 100 / 1.5 / 500)
