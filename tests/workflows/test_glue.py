"""GLUE and SQuAD tasks: the published files read, dev reported on, slices said, the suite averaged, no-answer tuned."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from affinage.data.examples import SpanExample, read_examples
from affinage.data.readers import find_parts
from affinage.data.task import load_task, task_names
from affinage.errors import DataError, InputError
from affinage.report.report import Report
from affinage.runtime.load import load
from affinage.workflows.baseline import baseline
from affinage.workflows.evaluate import evaluate
from affinage.workflows.finetune import finetune
from affinage.workflows.labelled_data import training_data
from affinage.workflows.report import make_report
from affinage.workflows.unanswerable import unanswerable
from shared_data import DATA, needs_shared_data
from tiny import SENTENCES, save_tiny
from tiny_data import STEPS, rows_of, write_rows
from tiny_runs import right, write_baseline, write_tuned

GLUE = [name for name in task_names() if load_task(name).suite == "glue"]


def test_the_nine_tasks() -> None:
    assert sorted(GLUE) == ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"]
    assert load_task("stsb").metrics[0] == "mean(pearson, spearman)"
    assert load_task("mrpc").metrics[0] == "mean(accuracy, f1:equivalent)"


@needs_shared_data
@pytest.mark.parametrize("task", [*GLUE, "squad", "squad2"])
def test_the_published_files_are_read(task: str) -> None:
    folder = DATA / "en" / ({"squad": "squad/v1.1", "squad2": "squad/v2.0"}.get(task) or f"glue/{task}")
    for source in find_parts(folder).values():
        assert len(read_examples(load_task(task), source, limit=300)) >= 71


@needs_shared_data
def test_slices_are_said_and_dev_is_reported_on() -> None:
    whole = training_data(load_task("rte"), DATA / "en/glue/rte")
    assert (whole.test_split, len(whole.test), whole.valid_split, whole.notes) == ("dev", 277, "held-out train", ())
    assert len(whole.train) + len(whole.valid) == 2490
    sliced = training_data(load_task("qqp"), DATA / "en/glue/qqp")
    assert sliced.notes == (
        "qqp: its train part has 8,999 of the 363,846 rows published: a slice",
        "qqp: its valid part has 1,000 of the 40,430 rows published: a slice",
    )


def write_pairs(folder: Path) -> Path:
    """STS-B's columns, twenty rows to train on and ten of dev."""
    rows = [
        {"sentence1": f"{SENTENCES[i % 10]} {i}", "sentence2": SENTENCES[(3 * i) % 10], "label": i % 11 / 2}
        for i in range(30)
    ]
    write_rows(folder / "train.jsonl", rows[:20])
    write_rows(folder / "dev.jsonl", rows[20:])
    return folder


def test_a_regression_on_pairs_end_to_end(tmp_path: Path) -> None:
    data, out = write_pairs(tmp_path / "stsb"), tmp_path / "model"
    report = finetune(save_tiny(tmp_path, "bert"), task="stsb", data=data, out=out, overrides=STEPS, quiet=True)
    assert [s.split for s in report.scores] == ["held-out train"] * 3 + ["dev"] * 3
    assert report.notes[0] == "stsb: its train part has 20 of the 5,749 rows published: a slice"
    again = evaluate(out, data=data)
    assert [s.split for s in again.scores] == ["dev"] * 3
    assert [s.value for s in again.scores] == [s.value for s in report.scores[3:]]
    assert again.notes == report.notes[1:]
    assert f"{again.notes[0]}." in again.to_markdown()
    by_name = {s.metric: s.value for s in again.scores}
    both = by_name["pearson"], by_name["spearman"]
    assert by_name["mean(pearson, spearman)"] == pytest.approx(np.mean(both))
    assert evaluate(out, data=data, split="dev").scores[0].split == "valid"
    assert load(out).predict([("Le train.", "La pluie.")])[0].keys() == {"value"}
    with pytest.raises(InputError, match="expected a pair"):
        load(out).predict("Le train.")


@pytest.mark.parametrize("hidden", [-1, None])
def test_a_test_part_whose_labels_are_not_published_is_left_out(
    tmp_path: Path, hidden: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    data, model = write_pairs(tmp_path / "stsb"), save_tiny(tmp_path, "bert")
    texts = [{"sentence1": s, "sentence2": s} for s in SENTENCES]
    write_rows(data / "test.jsonl", [{**row, **({} if hidden is None else {"label": hidden})} for row in texts])
    with caplog.at_level(logging.INFO, "affinage"):
        report = finetune(model, task="stsb", data=data, out=tmp_path / "m", overrides=STEPS, quiet=True)
    assert {s.split for s in report.scores} == {"held-out train", "dev"}
    assert "test.jsonl: its test part has no labels, as published; scores are of its dev part" in caplog.text
    assert {s.split for s in evaluate(tmp_path / "m", data=data).scores} == {"dev"}
    write_rows(data / "test.jsonl", [{**row, "label": 2.5} for row in texts[:5]])
    assert len(training_data(load_task("stsb"), data).test) == 5


def test_the_macro_average_of_a_suite(tmp_path: Path) -> None:
    shares = {"rte": (0.9, 0.7), "sst2": (0.8, 0.8), "wnli": (0.6, 0.5)}
    for place, (task, both) in enumerate(shares.items()):
        for system, share in zip(("teacher", "student"), both, strict=True):
            for seed in range(2):
                rows = right(share, n=100 + 50 * place, seed=7 * place + seed)
                out = tmp_path / f"{system}-{task}-{seed}"
                write_tuned(out, f"runs/{system}", {"accuracy": rows}, task=task, seed=seed, split="dev")
    only = write_tuned(tmp_path / "teacher-qnli", "runs/teacher", {"accuracy": right(0.9)}, task="qnli", split="dev")
    report = make_report([tmp_path], reference="teacher", out=tmp_path.parent / f"{tmp_path.name}-report")
    macro = {s.model: s for s in report.scores if s.task == "glue"}
    for system in ("teacher", "student"):
        each = [s for s in report.scores if s.model == system and s.task in shares]
        assert macro[system].value == pytest.approx(np.mean([s.value for s in each]))
        assert macro[system].n == 100 + 150 + 200
        widest = max(s.high - s.low for s in each)
        assert 0 < macro[system].high - macro[system].low < widest  # tasks are drawn independently
    (beside,) = [c for c in report.comparisons if c.task == "glue"]
    assert beside.difference == pytest.approx(macro["student"].value - macro["teacher"].value)
    assert beside.plain == pytest.approx(macro["student"].value / macro["teacher"].value)
    assert beside.baseline is None
    (told,) = report.notes
    assert told.startswith(
        "glue: the macro average is the mean over rte (accuracy), sst2 (accuracy), wnli (accuracy); "
    )
    assert "qnli" in told.partition("left out: ")[2]
    assert "macro average" in report.to_markdown()
    assert only.is_dir()


def test_a_system_of_another_task_leaves_the_average_alone_and_parts_are_not_mixed(tmp_path: Path) -> None:
    for place, task in enumerate(("rte", "sst2", "wnli")):
        for system in ("teacher", "student"):
            rows = {"accuracy": right(0.8, n=100, seed=place)}
            part = "held-out train" if task == "wnli" else "dev"
            write_tuned(tmp_path / f"{system}-{task}", f"runs/{system}", rows, task=task, split=part)
    write_tuned(tmp_path / "other", "runs/other", {"accuracy": right(0.7)}, task="sentiment")
    report = make_report([tmp_path], reference="teacher", out=tmp_path.parent / f"{tmp_path.name}-report")
    assert {score.model for score in report.scores if score.task == "glue"} == {"teacher", "student"}
    (told,) = report.notes
    assert told.startswith("glue: the macro average is the mean over rte (accuracy), sst2 (accuracy); left out: ")


def test_labels_under_other_words_than_the_metric_s_are_refused(tmp_path: Path) -> None:
    lines = [{"sentence1": f"a {i}", "sentence2": "b", "label": ("same", "other")[i % 2]} for i in range(20)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(
        InputError, match=r"F1 of 'equivalent', which is none of the labels .*not_equivalent, equivalent"
    ):
        training_data(load_task("mrpc"), tmp_path)


def test_a_suite_above_its_baselines(tmp_path: Path) -> None:
    for task in ("rte", "sst2"):
        for system, share in (("teacher", 0.9), ("student", 0.8)):
            write_tuned(tmp_path / f"{system}-{task}", f"runs/{system}", {"accuracy": right(share)}, task=task)
        write_baseline(tmp_path / f"baseline-{task}", "runs/teacher", {"accuracy": right(0.5)}, task=task)
    report = make_report([tmp_path], reference="teacher", out=tmp_path.parent / f"{tmp_path.name}-report")
    (beside,) = [c for c in report.comparisons if c.task == "glue"]
    teacher, student = (next(s.value for s in report.scores if (s.task, s.model) == ("glue", name)) for name in
                        ("teacher", "student"))  # fmt: skip
    floor = np.mean([s.value for s in report.scores if s.model.startswith("frozen")])
    assert beside.retention == pytest.approx((student - floor) / (teacher - floor))
    assert Report.from_json(report.to_json()) == report


def write_squad2(folder: Path) -> Path:
    rows = rows_of("qa", 30)
    for row in rows[10::2]:
        row["answers"] = {"text": [], "answer_start": []}
    write_rows(folder / "train.jsonl", rows[:15])
    write_rows(folder / "dev.jsonl", rows[15:])
    return folder


def test_the_no_answer_threshold_is_tuned_on_some_contexts_and_kept(tmp_path: Path) -> None:
    data, out = write_squad2(tmp_path / "data"), tmp_path / "model"
    read = training_data(load_task("squad2"), data)
    tuning = {e.context for e in read.valid if isinstance(e, SpanExample)}
    reported = {e.context for e in read.test if isinstance(e, SpanExample)}
    assert (read.valid_split, read.test_split) == ("part of dev", "rest of dev")
    assert tuning
    assert not tuning & reported
    assert len(read.valid) + len(read.test) == 15
    report = finetune(save_tiny(tmp_path, "bert"), task="squad2", data=data, out=out, overrides=STEPS, quiet=True)
    kept = json.loads((out / "config.json").read_text())["no_answer_threshold"]
    assert isinstance(kept, float)
    again = evaluate(out, data=data)
    assert [(s.split, s.value) for s in again.scores] == [
        (s.split, s.value) for s in report.scores if s.split == "rest of dev"
    ]
    for threshold, none in ((-1e4, True), (1e4, False)):
        config = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps({**config, "no_answer_threshold": threshold}))
        (said,) = load(out).predict({"question": "Quoi donc ?", "context": SENTENCES[0]})
        assert (said["answer"] == "") is none
    tuned_again = finetune(out, task="qa", data=data, out=tmp_path / "qa", overrides=STEPS, quiet=True)
    assert "no_answer_threshold" not in json.loads((tmp_path / "qa" / "config.json").read_text())
    assert tuned_again.scores


def test_a_question_that_fills_its_row_is_refused_before_training(tmp_path: Path) -> None:
    rows = rows_of("qa", 12)
    write_rows(tmp_path / "data" / "train.jsonl", rows[:8])
    rows[9]["question"] = 40 * rows[9]["question"]
    write_rows(tmp_path / "data" / "test.jsonl", rows[8:])
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"test\.jsonl:2: question .* longer rows .*training\.row_length"):
        finetune(save_tiny(tmp_path), task="qa", data=tmp_path / "data", out=out, overrides=STEPS)
    assert not out.exists() and not out.with_name("out.partial").exists()


def test_the_baseline_tunes_its_threshold_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    baseline(
        save_tiny(tmp_path), task="squad2", data=write_squad2(tmp_path / "data"), out=tmp_path / "b", overrides=STEPS
    )
    assert "no answer from a margin of" in caplog.text


def test_texts_of_the_test_part_that_were_trained_on_are_said(tmp_path: Path) -> None:
    rows = rows_of("sentiment", 20)
    write_rows(tmp_path / "train.jsonl", rows[:14])
    write_rows(tmp_path / "test.jsonl", [*rows[14:], rows[0]])
    (note,) = training_data(load_task("sentiment"), tmp_path).notes
    assert note.endswith("of the 7 texts of the test part stand in the training part too")


def test_a_dev_part_with_answers_only_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_rows(data / "train.jsonl", rows_of("qa", 15))
    with pytest.raises(InputError, match=r"no question without an answer.*affinage unanswerable"):
        finetune(save_tiny(tmp_path, "bert"), task="squad2", data=data, out=tmp_path / "m", overrides=STEPS, quiet=True)


def test_a_training_set_for_squad2_is_made(tmp_path: Path) -> None:
    data = tmp_path / "squad"
    write_rows(data / "train.jsonl", [{**row, "title": "Lyon"} for row in rows_of("qa", 10)])
    dev = write_rows(tmp_path / "2.0" / "dev.jsonl", rows_of("qa", 3))
    made = unanswerable(data, dev=dev, out=tmp_path / "out", share=0.5)
    assert made["answerable"] == 10
    assert made["unanswerable"] > 2
    examples = read_examples(load_task("squad2"), find_parts(tmp_path / "out")["train"])
    assert sum(isinstance(e, SpanExample) and not e.answers for e in examples) == made["unanswerable"]
    assert (tmp_path / "out" / "dev.jsonl").read_bytes() == dev.read_bytes()
    with pytest.raises(InputError, match="--share 1: must lie between 0 and 1"):
        unanswerable(data, out=tmp_path / "b", share=1)
    reviews = write_rows(tmp_path / "reviews.jsonl", [{"text": "Bon.", "label": 1}])
    with pytest.raises(DataError, match="no column 'question', 'context', 'answers'"):
        unanswerable(data, out=tmp_path / "b", dev=reviews)
    with pytest.raises(InputError, match="there is no such file"):
        unanswerable(data, out=tmp_path / "b", dev=tmp_path / "nothing.jsonl")
    alone = write_rows(tmp_path / "alone" / "train.jsonl", rows_of("qa", 1))
    with pytest.raises(InputError, match="no question can be moved"):
        unanswerable(alone, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()
