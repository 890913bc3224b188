"""What the labelled sets that ship promise: sizes, balance, spans that match, nothing twice and nothing shared."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from math import log
from pathlib import Path
from typing import Any

import pytest

from affinage.data.examples import read_examples
from affinage.data.readers import find_parts
from affinage.data.task import load_task
from affinage.workflows.demo import shipped_data

PARTS = ("train", "test")
SETS = ("sentiment", "ner", "nli", "qa")
TYPES = ("PER", "ORG", "LOC", "MISC")


@dataclass(frozen=True)
class Shipped:
    """The four sets of a language, and how much of everything there must be."""

    folder: Path
    least: dict[str, int]
    domains: int
    articles: int
    entities: dict[str, int]
    """of every type, in each part"""
    negations: frozenset[str]

    def rows(self, task: str, part: str) -> list[dict[str, Any]]:
        text = (self.folder / task / f"{part}.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def texts(self, task: str, part: str) -> list[str]:
        """Every text of a part, once a row; of a question's row the question, and every article and premise once."""
        found = self.rows(task, part)
        if task == "sentiment":
            return [row["text"] for row in found]
        if task == "ner":
            return [" ".join(row["tokens"]) for row in found]
        whole, asked = ("premise", "hypothesis") if task == "nli" else ("context", "question")
        return [*dict.fromkeys(row[whole] for row in found), *(row[asked] for row in found)]


LANGUAGES = {
    "fr": Shipped(
        folder=shipped_data(),
        least={"sentiment": 300, "ner": 300, "nli": 300, "qa": 240},
        domains=6,
        articles=60,
        entities={"train": 50, "test": 35},
        negations=frozenset({"ne", "n", "pas", "aucun", "aucune", "jamais", "personne", "rien", "sans"}),
    ),
    "en": Shipped(
        folder=shipped_data(english=True),
        least={"sentiment": 100, "ner": 90, "nli": 100, "qa": 80},
        domains=10,
        articles=20,
        entities={"train": 15, "test": 15},
        negations=frozenset({"not", "no", "nobody", "nothing", "never", "none", "without"}),
    ),
}


@pytest.fixture(params=LANGUAGES)
def shipped(request: pytest.FixtureRequest) -> Shipped:
    """Each language in turn."""
    return LANGUAGES[request.param]


def sentences(text: str) -> list[str]:
    """Its sentences of more than three words, without case and punctuation."""
    cut = re.split(r"(?<=[.!?…])\s+", text)
    plain = (" ".join(re.findall(r"\w+", sentence.casefold())) for sentence in cut)
    return [sentence for sentence in plain if sentence.count(" ") > 2]


@pytest.mark.parametrize("task", SETS)
def test_they_are_large_enough_and_our_readers_take_them(shipped: Shipped, task: str) -> None:
    parts = find_parts(shipped.folder / task)
    assert set(parts) == set(PARTS)
    read = {part: read_examples(load_task(task), source) for part, source in parts.items()}
    assert sum(map(len, read.values())) >= shipped.least[task]
    assert len(read["test"]) >= 0.3 * shipped.least[task]


@pytest.mark.parametrize("task", SETS)
def test_no_sentence_twice_and_none_in_both_parts(shipped: Shipped, task: str) -> None:
    both = {part: shipped.texts(task, part) for part in PARTS}
    everything = list(chain(*both.values()))
    assert [text for text, n in Counter(everything).items() if n > 1] == []
    found = [sentence for text in everything for sentence in sentences(text)]
    assert [sentence for sentence, n in Counter(found).items() if n > 1] == []


@pytest.mark.parametrize("task", SETS)
def test_the_text_is_clean(shipped: Shipped, task: str) -> None:
    for text in chain(*(shipped.texts(task, part) for part in PARTS)):
        assert text == text.strip()
        assert "  " not in text
        assert not re.search(r"[\n\t\u00a0\ufffd]", text)


@pytest.mark.parametrize(("task", "labels"), [("sentiment", 2), ("nli", 3)])
@pytest.mark.parametrize("part", PARTS)
def test_labels_are_balanced(shipped: Shipped, task: str, labels: int, part: str) -> None:
    counts = Counter(row["label"] for row in shipped.rows(task, part))
    assert len(counts) == labels
    assert len(set(counts.values())) == 1


def test_reviews_come_from_several_domains(shipped: Shipped) -> None:
    for part in PARTS:
        assert len({row["domain"] for row in shipped.rows("sentiment", part)}) >= shipped.domains


def test_every_premise_has_one_hypothesis_a_label(shipped: Shipped) -> None:
    for part in PARTS:
        labels: dict[str, list[str]] = {}
        for row in shipped.rows("nli", part):
            labels.setdefault(row["premise"], []).append(row["label"])
        assert all(sorted(found) == ["contradiction", "entailment", "neutral"] for found in labels.values())


def test_a_negation_tells_no_label(shipped: Shipped) -> None:
    said: dict[str, list[bool]] = {}
    for row in chain(*(shipped.rows("nli", part) for part in PARTS)):
        said.setdefault(row["label"], []).append(
            bool(shipped.negations & set(re.findall(r"\w+", row["hypothesis"].casefold())))
        )
    rates = [sum(found) / len(found) for found in said.values()]
    assert max(rates) - min(rates) < 0.1


def test_the_hypothesis_alone_does_not_give_the_label_away(shipped: Shipped) -> None:
    """Naive Bayes with add-one smoothing on its words, balanced labels: chance is a third."""
    words: dict[str, Counter[str]] = {}
    for row in shipped.rows("nli", "train"):
        words.setdefault(row["label"], Counter()).update(re.findall(r"\w+", row["hypothesis"].casefold()))
    known = len(set(chain(*words.values())))

    def likelihood(label: str, text: str) -> float:
        counts = words[label]
        return sum(log((counts[w] + 1) / (counts.total() + known)) for w in re.findall(r"\w+", text.casefold()))

    test = shipped.rows("nli", "test")
    right = sum(max(words, key=lambda label: likelihood(label, row["hypothesis"])) == row["label"] for row in test)
    assert right / len(test) < 0.45


@pytest.mark.parametrize("part", PARTS)
def test_entities_are_tagged_and_of_every_type(shipped: Shipped, part: str) -> None:
    begun: Counter[str] = Counter()
    for row in shipped.rows("ner", part):
        assert len(row["tokens"]) == len(row["tags"])
        before = "O"
        for token, tag in zip(row["tokens"], row["tags"], strict=True):
            assert token and not re.search(r"\s", token)
            if tag.startswith("I-"):
                assert before[2:] == tag[2:]
            begun[tag[2:]] += tag.startswith("B-")
            before = tag
    assert all(begun[kind] >= shipped.entities[part] for kind in TYPES)


def test_most_entities_of_the_test_part_are_new(shipped: Shipped) -> None:
    def entities(part: str) -> set[str]:
        found = set()
        for row in shipped.rows("ner", part):
            words: list[str] = []
            for token, tag in [*zip(row["tokens"], row["tags"], strict=True), ("", "O")]:
                if words and not tag.startswith("I-"):
                    found.add(" ".join(words))
                    words = []
                if tag != "O":
                    words.append(token)
        return found

    test = entities("test")
    assert len(test - entities("train")) >= 0.6 * len(test)


@pytest.mark.parametrize("part", PARTS)
def test_answers_stand_where_they_are_said_to(shipped: Shipped, part: str) -> None:
    found = shipped.rows("qa", part)
    assert len({row["id"] for row in found}) == len(found)
    for row in found:
        answers = row["answers"]
        assert answers["text"]
        for text, start in zip(answers["text"], answers["answer_start"], strict=True):
            assert text == text.strip()
            assert row["context"][start : start + len(text)] == text
    questions = Counter(row["context"] for row in found)
    assert set(questions.values()) == {4}


def test_there_are_articles_enough_and_no_subject_twice(shipped: Shipped) -> None:
    titles = [title for part in PARTS for title in {row["title"] for row in shipped.rows("qa", part)}]
    assert len(titles) >= shipped.articles
    assert len(set(titles)) == len(titles)


def test_the_card_says_whose_they_are(shipped: Shipped) -> None:
    card = (shipped.folder / "README.md").read_text(encoding="utf-8")
    assert "license: cc0-1.0" in card
    assert "written for this project" in card
    for task in SETS:
        for part in PARTS:
            assert f"{len(shipped.rows(task, part))}" in card
