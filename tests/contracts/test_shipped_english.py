"""What the English sets that ship promise: sizes, balance, spans that match, nothing twice and nothing shared."""

import json
import re
from collections import Counter
from itertools import chain
from typing import Any

import pytest

from affinage.data.examples import read_examples
from affinage.data.readers import find_parts
from affinage.data.task import load_task
from affinage.workflows.demo import shipped_data

DATA = shipped_data(english=True)
PARTS = ("train", "test")
SETS = ("sentiment", "ner", "nli", "qa")
LEAST = {"sentiment": 100, "ner": 90, "nli": 100, "qa": 80}


def rows(task: str, part: str) -> list[dict[str, Any]]:
    text = (DATA / task / f"{part}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def texts(task: str, part: str) -> list[str]:
    """Every text of a part once a row, every article and premise once."""
    found = rows(task, part)
    if task == "sentiment":
        return [row["text"] for row in found]
    if task == "ner":
        return [" ".join(row["tokens"]) for row in found]
    whole, asked = ("premise", "hypothesis") if task == "nli" else ("context", "question")
    return [*dict.fromkeys(row[whole] for row in found), *(row[asked] for row in found)]


@pytest.mark.parametrize("task", SETS)
def test_our_readers_take_them(task: str) -> None:
    parts = find_parts(DATA / task)
    assert set(parts) == set(PARTS)
    read = {part: read_examples(load_task(task), source) for part, source in parts.items()}
    assert sum(map(len, read.values())) >= LEAST[task]
    assert len(read["test"]) >= 0.3 * LEAST[task]


@pytest.mark.parametrize("task", SETS)
def test_they_are_clean_and_say_nothing_twice(task: str) -> None:
    everything = list(chain(*(texts(task, part) for part in PARTS)))
    assert [text for text, n in Counter(everything).items() if n > 1] == []
    sentences = [s.casefold() for text in everything for s in re.split(r"(?<=[.!?])\s+", text) if s.count(" ") > 3]
    assert [sentence for sentence, n in Counter(sentences).items() if n > 1] == []
    for text in everything:
        assert text == text.strip()
        assert not re.search(r"  |[\n\t\u00a0\ufffd]", text)


@pytest.mark.parametrize("part", PARTS)
def test_labels_are_balanced(part: str) -> None:
    for task, labels in (("sentiment", 2), ("nli", 3)):
        counts = Counter(row["label"] for row in rows(task, part))
        assert len(counts) == labels
        assert len(set(counts.values())) == 1
    assert len({row["domain"] for row in rows("sentiment", part)}) >= 10
    of_premise: dict[str, list[str]] = {}
    for row in rows("nli", part):
        of_premise.setdefault(row["premise"], []).append(row["label"])
    assert all(sorted(found) == ["contradiction", "entailment", "neutral"] for found in of_premise.values())


def test_a_negation_tells_no_label() -> None:
    words = {"not", "no", "nobody", "nothing", "never", "none", "without"}
    said: dict[str, list[bool]] = {}
    for row in chain(*(rows("nli", part) for part in PARTS)):
        said.setdefault(row["label"], []).append(bool(words & set(re.findall(r"\w+", row["hypothesis"].casefold()))))
    rates = [sum(found) / len(found) for found in said.values()]
    assert max(rates) - min(rates) < 0.1


@pytest.mark.parametrize("part", PARTS)
def test_entities_are_of_every_type(part: str) -> None:
    begun: Counter[str] = Counter()
    for row in rows("ner", part):
        before = "O"
        for tag in row["tags"]:
            assert not tag.startswith("I-") or before[2:] == tag[2:]
            begun[tag[2:]] += tag.startswith("B-")
            before = tag
    assert all(begun[kind] >= 15 for kind in ("PER", "ORG", "LOC", "MISC"))


@pytest.mark.parametrize("part", PARTS)
def test_answers_stand_where_they_are_said_to(part: str) -> None:
    found = rows("qa", part)
    assert len({row["id"] for row in found}) == len(found)
    for row in found:
        for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
            assert row["context"][start : start + len(text)] == text
    assert set(Counter(row["context"] for row in found).values()) == {4}
    assert not {row["title"] for row in rows("qa", "train")} & {row["title"] for row in rows("qa", "test")}


def test_the_card_says_whose_they_are() -> None:
    card = (DATA / "README.md").read_text(encoding="utf-8")
    assert "license: cc0-1.0" in card
    assert "written for this project" in card
    for task in SETS:
        assert f"| `{task}` | {len(rows(task, 'train'))} | {len(rows(task, 'test'))} |" in card
