"""Examples: well-formed rows pass, each kind of bad row is named, labels have one order."""

import json
from pathlib import Path
from typing import Any

import pytest

from affinage.data.examples import (
    MultiLabelExample,
    RegressionExample,
    SpanExample,
    TextExample,
    labels_of,
    read_examples,
)
from affinage.data.task import load_task
from affinage.errors import DataError, InputError


def write(folder: Path, *records: dict[str, Any]) -> Path:
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def read(folder: Path, task: str, *records: dict[str, Any], **settings: Any) -> list[Any]:
    return read_examples(load_task(task), write(folder, *records), **settings)


QUESTION = {"question": "Où ?", "context": "À Évian, en Savoie.", "answers": {"text": ["Évian"], "answer_start": [2]}}


@pytest.mark.parametrize(
    ("task", "record", "words"),
    [
        ("sentiment", {"text": 3, "label": 1}, "'text' must be text, got int 3"),
        ("sentiment", {"text": None, "label": 1}, "'text' must be text, got nothing"),
        ("sentiment", {"text": " \n", "label": 1}, "'text' is blank"),
        ("sentiment", {"text": "\ud83d", "label": 1}, "half a surrogate pair"),
        ("sentiment", {"text": "a", "label": None}, "'label' must be a word or a number, got nothing"),
        ("sentiment", {"text": "a", "label": True}, "'label' must be a word or a number"),
        ("sentiment", {"text": "a", "label": 0.5}, "'label' must be a word or a number"),
        ("sentiment", {"text": "a", "label": float("nan")}, "'label' must be a word or a number"),
        ("sentiment", {"text": "a", "label": "  "}, "'label' is blank"),
        ("sentiment", {"text": "a", "label": 2}, "label 2 is unknown to task 'sentiment' (0 = negative, 1 = positive)"),
        ("sentiment", {"text": "a", "label": "-1"}, "label -1 is unknown"),
        ("nli", {"premise": "a", "hypothesis": "", "label": 0}, "'hypothesis' is blank"),
        ("topics", {"text": "a", "labels": 3}, "'labels' must be a list of labels (in a table: one cell"),
        ("topics", {"text": "a", "labels": ["b", None]}, "'label' must be a word or a number, got nothing"),
        ("topics", {"text": "a", "labels": ["b"] * 1001}, "'labels' has 1,001 entries, more than 1000"),
        ("topics", {"text": " ", "labels": []}, "'text' is blank"),
        ("rating", {"text": "a", "label": "four"}, "'label' must be a number, got str 'four'"),
        ("rating", {"text": "a", "label": True}, "'label' must be a number, got bool True"),
        ("rating", {"text": "a", "label": float("nan")}, "'label' must be a number between -1e+09 and 1e+09"),
        ("rating", {"text": "a", "label": 10**400}, "'label' must be a number, got int"),
        ("rating", {"text": "a", "label": None}, "'label' must be a number, got nothing"),
        ("ner", {"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens but 1 tags"),
        ("ner", {"tokens": [], "tags": []}, "'tokens' is empty"),
        ("ner", {"tokens": "a b", "tags": ["O", "O"]}, "'tokens' must be a list of strings, got str 'a b'"),
        ("ner", {"tokens": ["a", 1], "tags": ["O", "O"]}, "'tokens' must be a list of strings, got int 1 in it"),
        ("ner", {"tokens": ["a", " "], "tags": ["O", "O"]}, "token 2 is blank"),
        ("ner", {"tokens": ["a"], "tags": ["PER"]}, "tag 'PER' of token 1 ('a') is not BIO"),
        ("ner", {"tokens": ["a"], "tags": ["B-"]}, "is not BIO"),
        ("qa", {**QUESTION, "answers": {"text": ["Évian"], "answer_start": [3]}}, "not at answer_start 3"),
        ("qa", {**QUESTION, "answers": {"text": ["Évian"], "answer_start": [-17]}}, "not at answer_start -17"),
        ("qa", {**QUESTION, "answers": {"text": ["Évian"], "answer_start": []}}, "as many texts as starts"),
        ("qa", {**QUESTION, "answers": {"text": [""], "answer_start": [0]}}, "the text of an answer must be a text"),
        ("qa", {**QUESTION, "answers": [{"text": "Évian", "answer_start": "2"}]}, "index of a character, got str"),
        ("qa", {**QUESTION, "answers": "Évian"}, "'answers' must be"),
        ("qa", {**QUESTION, "question": ""}, "'question' is blank"),
    ],
)
def test_bad_rows(tmp_path: Path, task: str, record: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, task, record)
    assert str(caught.value).startswith(f"{tmp_path / 'a.jsonl'}:1: ")
    assert words in str(caught.value)


def test_many_bad_rows_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, "sentiment", *[{"text": "", "label": 1}, {"text": "a", "label": 1}] * 30)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in lines[:10]] == [str(n) for n in range(1, 20, 2)]
    assert lines[10:] == ["… reading stopped after 10 bad rows"]


def test_labels_are_names(tmp_path: Path) -> None:
    given = [1, "0", "positive", 1.0, " negative "]
    examples = read(tmp_path, "sentiment", *({"text": "a", "label": label} for label in given))
    assert [e.label for e in examples] == ["positive", "negative", "positive", "positive", "negative"]
    assert examples[0] == TextExample("a", "positive", f"{tmp_path / 'a.jsonl'}:1")
    assert labels_of(load_task("sentiment"), examples) == ("negative", "positive")


def test_labels_of_the_data_are_sorted(tmp_path: Path) -> None:
    examples = read(tmp_path, "sentiment", *({"text": "a", "label": label} for label in ("neutre", "bien", "bien")))
    assert labels_of(load_task("sentiment"), examples) == ("bien", "neutre")
    tags = ["B-PER", "O", "B-LOC", "I-LOC"]
    examples = read(tmp_path, "ner", {"tokens": list("abcd"), "tags": tags})
    assert labels_of(load_task("ner"), examples) == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert labels_of(load_task("qa"), read(tmp_path, "qa", QUESTION)) == ()


def test_several_labels_and_numbers(tmp_path: Path) -> None:
    place = f"{tmp_path / 'a.jsonl'}:1"
    given = ["refund", "angry", "refund"], "refund| angry ", [], "", [2, "x"]
    examples = read(tmp_path, "topics", *({"text": "a", "labels": labels} for labels in given))
    assert examples[0] == MultiLabelExample("a", ("angry", "refund"), place)
    assert [e.labels for e in examples[1:]] == [("angry", "refund"), (), (), ("2", "x")]
    assert labels_of(load_task("topics"), examples) == ("2", "angry", "refund", "x")
    numbers = read(tmp_path, "rating", *({"text": "a", "label": label} for label in (4, "3.5", 1e-3)))
    assert numbers[0] == RegressionExample("a", None, 4.0, place)
    assert [e.value for e in numbers] == [4.0, 3.5, 0.001]
    assert labels_of(load_task("rating"), numbers) == ("value",)


def test_questions_without_id_or_answer(tmp_path: Path) -> None:
    both = read(tmp_path, "qa", {**QUESTION, "answers": {"text": [], "answer_start": []}}, {**QUESTION, "id": 7})
    place = f"{tmp_path / 'a.jsonl'}:1"
    assert both[0] == SpanExample(place, "Où ?", QUESTION["context"], (), place)
    assert both[1].id == "7"
    assert both[1].answers == (("Évian", 2),)


def test_a_field_that_the_task_has_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown field of task 'sentiment' 'txt'. Did you mean 'text'"):
        read(tmp_path, "sentiment", {"text": "a", "label": 1}, columns={"txt": "review"})


def test_limit(tmp_path: Path) -> None:
    assert len(read(tmp_path, "sentiment", *[{"text": "a", "label": 1}] * 5, limit=2)) == 2
