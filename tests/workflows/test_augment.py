"""`affinage augment` end to end on tiny models: what is written, labelled, resumed, refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affinage.data.examples import PairExample, TextExample, read_examples
from affinage.data.task import load_task
from affinage.data.unlabelled import read_unlabelled
from affinage.data.words import split_words
from affinage.distillation.augmentation.copies import Augmenter
from affinage.errors import DataError, InputError
from affinage.runtime.load import load
from affinage.workflows import augment as module
from affinage.workflows.augment import augment
from affinage.workflows.labelled_data import training_data
from tiny import SENTENCES, save_tiny
from tiny_data import rows_of, write_rows, write_task

NLI = {0: "entailment", 1: "neutral", 2: "contradiction"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models"), "camembert", "mlm")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models"), "bert", "pair", id2label=NLI)


@pytest.fixture(scope="module")
def vec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of every word of the sentences: the tiny vocabularies cut nearly all of them into pieces."""
    path = tmp_path_factory.mktemp("vectors") / "words.vec"
    words = sorted({s[a:b] for s in SENTENCES for a, b in split_words(s)})
    rows = np.random.default_rng(0).normal(size=(len(words), 5))
    lines = [" ".join([word, *(f"{x:.3f}" for x in row)]) for word, row in zip(words, rows, strict=True)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_copies_without_labels_lie_beside_the_originals(model: Path, vec: Path, tmp_path: Path) -> None:
    data = write_task(tmp_path / "reviews", "sentiment")
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    made = augment(model, task="sentiment", data=data, out=tmp_path / "out", copies=3, vectors=vec, quiet=True)
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "augmentation.json",
        "test.jsonl",
        "train.jsonl",
        "unlabelled.jsonl",
        "valid.jsonl",
    ]
    assert {name: (out / name).read_bytes() for name in ("valid.jsonl", "test.jsonl")} == {
        name: before[name] for name in ("valid.jsonl", "test.jsonl")
    }
    task = load_task("sentiment")
    originals = read_examples(task, data / "train.jsonl")
    kept = read_examples(task, out / "train.jsonl")
    assert [(e.text, e.label) for e in kept if isinstance(e, TextExample)] == [
        (e.text, e.label) for e in originals if isinstance(e, TextExample)
    ]
    copies = lines(out / "unlabelled.jsonl")
    assert made.copies == len(copies) > 16
    assert made.originals == 8
    assert len(read_unlabelled(task, out / "unlabelled.jsonl")) == made.copies  # as distil reads them
    assert all(set(row) == {"text", "copy_of"} for row in copies)
    texts = {e.where: e.text for e in originals if isinstance(e, TextExample)}
    for where, text in texts.items():
        own = [row["text"] for row in copies if row["copy_of"] == where]
        assert len(set(own)) == len(own) <= 3
        assert text not in own
    noted = json.loads((out / "augmentation.json").read_text(encoding="utf-8"))
    assert noted["copies"] == made.copies and noted["settings"]["candidates"] == 15
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "arXiv:1909.10351" in card and f"{made.copies} copies" in card
    assert noted["provenance"]["data"][str(data / "train.jsonl")] in card
    assert not (tmp_path / "out.partial").exists()


def test_pairs_change_one_side_at_a_time_and_the_teacher_labels_them(
    model: Path, teacher: Path, vec: Path, tmp_path: Path
) -> None:
    rows = [{**row, "source": "tests"} for row in rows_of("nli", 9)]
    data = write_rows(
        tmp_path / "nli.jsonl", [{"a": r["premise"], "b": r["hypothesis"], "y": r["label"]} for r in rows]
    )
    columns = {"premise": "a", "hypothesis": "b", "label": "y"}
    made = augment(
        model,
        task="nli",
        data=data,
        out=tmp_path / "out",
        copies=2,
        teacher=teacher,
        vectors=vec,
        columns=columns,
        quiet=True,
    )
    task = load_task("nli")
    read = training_data(task, tmp_path / "out", columns=columns)  # what a fine-tuning on it would read
    held = training_data(task, data, columns=columns)
    assert [(e.first, e.second, e.label) for e in read.valid if isinstance(e, PairExample)] == [
        (e.first, e.second, e.label) for e in held.valid if isinstance(e, PairExample)
    ]
    written = lines(tmp_path / "out" / "train.jsonl")
    originals, copies = written[: made.originals], written[made.originals :]
    assert made.originals == len(held.train) == len(rows) - len(held.valid)
    assert all(set(row) == {"a", "b", "y"} for row in originals)
    assert made.copies == len(copies)
    pairs = {e.where: (e.first, e.second) for e in held.train if isinstance(e, PairExample)}
    sides = set()
    for row in copies:
        same = [row["a"] == pairs[row["copy_of"]][0], row["b"] == pairs[row["copy_of"]][1]]
        assert sorted(same) == [False, True]
        sides.add(tuple(same))
    assert len(sides) == 2
    answers = load(teacher).predict([(row["a"], row["b"]) for row in copies], top_k=3)
    for row, answer in zip(copies, answers, strict=True):
        assert row["y"] == answer["label"]
        expected = {top["label"]: top["score"] for top in answer["top"]}
        assert row["teacher"] == pytest.approx(expected, abs=1e-5)


def test_a_teacher_gives_copies_any_number_of_labels_or_a_value(model: Path, vec: Path, tmp_path: Path) -> None:
    names = {0: "two", 1: "three"}
    several = save_tiny(
        tmp_path / "several", "bert", "sequence", id2label=names, problem_type="multi_label_classification"
    )
    value = save_tiny(tmp_path / "value", "bert", "sequence", num_labels=1, problem_type="regression")
    for task, teacher in (("topics", several), ("rating", value)):
        data, out = write_task(tmp_path / task, task), tmp_path / f"{task}-more"
        made = augment(model, task=task, data=data, out=out, copies=1, vectors=vec, teacher=teacher, quiet=True)
        rows = lines(out / "train.jsonl")
        assert [row for row in rows if "copy_of" not in row] == [
            {**row, **({"labels": sorted(row["labels"])} if task == "topics" else {})}
            for row in lines(data / "train.jsonl")
        ]
        assert made.copies == len(rows) - 8 > 3
        for row in rows[8:]:
            if task == "topics":
                assert set(row["teacher"]) == {"two", "three"}
                assert row["labels"] == [name for name in names.values() if row["teacher"][name] > 0.5]
            else:
                assert isinstance(row["label"], float) and "teacher" not in row
        assert len(training_data(load_task(task), out).train) == len(rows)


def test_of_one_label_that_may_be_missing_copies_get_a_list(model: Path, vec: Path, tmp_path: Path) -> None:
    """Its head has one output, as a regression's has."""
    rows = [{"text": sentence, "labels": ["refund"] if i % 2 else []} for i, sentence in enumerate(SENTENCES)]
    write_rows(tmp_path / "data" / "train.jsonl", rows)
    teacher = save_tiny(
        tmp_path / "one", "bert", "sequence", id2label={0: "refund"}, problem_type="multi_label_classification"
    )
    out = tmp_path / "more"
    augment(model, task="topics", data=tmp_path / "data", out=out, copies=1, vectors=vec, teacher=teacher, quiet=True)
    assert all(row["labels"] in ([], ["refund"]) for row in lines(out / "train.jsonl"))
    assert len(training_data(load_task("topics"), out).train) >= 8


def test_a_dev_part_that_is_tested_on_stays_one(model: Path, vec: Path, tmp_path: Path) -> None:
    rows = [{"sentence1": s, "sentence2": s, "label": i / 2} for i, s in enumerate(SENTENCES)]
    data = write_rows(tmp_path / "stsb" / "train.jsonl", rows * 3).parent
    write_rows(data / "dev.jsonl", rows)
    augment(model, task="stsb", data=data, out=tmp_path / "out", copies=1, vectors=vec, quiet=True)
    before, after = (training_data(load_task("stsb"), folder) for folder in (data, tmp_path / "out"))
    assert (tmp_path / "out" / "test.jsonl").read_bytes() == (data / "dev.jsonl").read_bytes()

    def said(examples: Any) -> list[Any]:
        return [(e.first, e.second, e.value) for e in examples]

    for part in ("train", "valid", "test"):
        assert said(getattr(before, part)) == said(getattr(after, part))


def test_no_copy_of_a_held_out_row_is_trained_on(model: Path, vec: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows_of("sentiment"))
    augment(model, task="sentiment", data=data, out=tmp_path / "out", copies=1, vectors=vec, quiet=True)
    held = {e.where for e in training_data(load_task("sentiment"), data).valid}
    assert held
    assert not held & {row["copy_of"] for row in lines(tmp_path / "out" / "unlabelled.jsonl")}


def test_a_stopped_run_goes_on_and_comes_to_the_same(
    model: Path, vec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_task(tmp_path / "reviews", "sentiment")
    monkeypatch.setattr(module, "_BLOCK", 3)
    asked: dict[str, Any] = {"task": "sentiment", "data": data, "copies": 2, "vectors": vec, "quiet": True}
    whole = augment(model, out=tmp_path / "whole", **asked)
    made = Augmenter.copies
    calls: list[int] = []

    def stop_at_the_second(self: Augmenter, texts: Any, *, first: int, part: int = 0) -> Any:
        calls.append(first)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return made(self, texts, first=first, part=part)

    monkeypatch.setattr(Augmenter, "copies", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        augment(model, out=tmp_path / "out", **asked)
    with pytest.raises(InputError, match=r"holds an unfinished run with another settings"):
        augment(model, out=tmp_path / "out", **{**asked, "copies": 3})
    again = augment(model, out=tmp_path / "out", **asked)
    assert calls == [0, 3, 3, 6]
    assert (again.copies, again.words) == (whole.copies, whole.words)
    for name in ("train.jsonl", "unlabelled.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("copies", "rows", "number"),
    [
        ("paper", 1, 20),
        ("code", 8_551, 30),
        ("code", 67_349, 20),
        ("code", 104_743, 20),
        ("code", 392_702, 10),
        (7, 1, 7),
    ],
)
def test_how_many_copies(copies: int | str, rows: int, number: int) -> None:
    assert module._copies(copies, rows) == number


def test_word_vectors_of_a_file_and_of_a_corpus(model: Path, tmp_path: Path) -> None:
    data = write_task(tmp_path / "reviews", "sentiment")
    (tmp_path / "corpus.txt").write_text("\n".join(SENTENCES * 3), encoding="utf-8")
    (tmp_path / "some.vec").write_text("patience 1 0\nfraîcheur 1 0.1\ncouteau 0 1\n", encoding="utf-8")
    asked: dict[str, Any] = {"task": "sentiment", "data": data, "copies": 1, "quiet": True}
    of_file = augment(model, out=tmp_path / "a", vectors=tmp_path / "some.vec", **asked)
    of_corpus = augment(model, out=tmp_path / "b", corpus=[tmp_path / "corpus.txt"], **asked)
    assert of_file.vectors == f"3 words, from {tmp_path / 'some.vec'}"
    assert of_corpus.vectors.endswith(f" words, from {tmp_path / 'corpus.txt'}")
    assert of_corpus.words["vectors"] > of_file.words["vectors"] > 0
    card = (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    assert str(tmp_path / "some.vec") in card.partition("sha256")[2]


def test_what_cannot_be_used_is_said_before_anything_is_written(model: Path, teacher: Path, tmp_path: Path) -> None:
    data = {task: write_task(tmp_path / task, task) for task in ("sentiment", "nli", "ner", "qa")}
    out = tmp_path / "out"

    def refused(said: str, task: str = "sentiment", kind: type[Exception] = InputError, **asked: Any) -> None:
        with pytest.raises(kind, match=said):
            augment(asked.pop("model", model), task=task, data=data[task], out=out, quiet=True, **asked)
        assert not out.exists() and not (tmp_path / "out.partial").exists()

    refused("task 'ner' \\(token\\) cannot be augmented: each word has a tag", task="ner")
    refused("task 'qa' \\(span\\) cannot be augmented: an answer is a span of its context", task="qa")
    for copies in ("0", "many", "1001", "-1", "9" * 40):
        refused("--copies '.+': expected a number from 1 to 1000, 'paper' or 'code'", copies=copies)
    refused("unknown language 'de'", language="de")
    refused("give --vectors or --corpus, not both", vectors=tmp_path / "a.vec", corpus=[tmp_path])
    refused("a.vec: does not exist", vectors=tmp_path / "a.vec")
    refused("is not fine-tuned", teacher=model)
    refused("knows the labels entailment, neutral, contradiction; those of the data are negative, pos", teacher=teacher)
    refused("is a BertForSequenceClassification|has no masked language model head", model=teacher)
    refused("a column of the data is called 'teacher'", columns={"text": "teacher"})
    (tmp_path / "a.vec").write_text("un 1 deux\n", encoding="utf-8")
    refused("a.vec:1: 'deux' is not a number", kind=DataError, vectors=tmp_path / "a.vec")
