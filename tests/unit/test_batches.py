"""Features and batches: targets stand on the right tokens, padding is inert, like lengths share a batch."""

import numpy as np
import pytest
import torch

from affinage.data.batches import LabelledRows, LengthGroups
from affinage.data.collate import pad_rows
from affinage.data.encoding import Row
from affinage.data.examples import (
    MultiLabelExample,
    PairExample,
    RegressionExample,
    SpanExample,
    TextExample,
    TokenExample,
)
from affinage.data.features import IGNORED, encode, fitted, targets
from affinage.errors import InputError
from tiny import ARCHITECTURES, tiny_tokenizer

WORDS = ("Claire", "a", "quitté", "Lyon", "pour", "l'", "école", ".")
TAGS = ("B-PER", "O", "O", "B-LOC", "O", "O", "O", "O")
LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
SENTENCE = TokenExample(WORDS, TAGS, "f:1")


def row(length: int, example: int = 0) -> Row:
    zeros = np.zeros(length, np.int64)
    return Row(example, zeros + 7, zeros, np.zeros((length, 2), np.int64), zeros)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tags_stand_on_the_first_token_of_each_word(architecture: str) -> None:
    tokenizer = tiny_tokenizer(architecture).backend_tokenizer
    (only,) = rows = encode(tokenizer, [SENTENCE], max_length=64, stride=8)
    (target,) = targets([SENTENCE], rows, LABELS)
    assert isinstance(target, np.ndarray)
    labelled = np.flatnonzero(target != IGNORED)
    assert len(labelled) == len(WORDS)
    assert [LABELS[c] for c in target[labelled]] == list(TAGS)
    text = "Claire a quitté Lyon pour l'école."
    assert [text[only.offsets[t, 0]] for t in labelled] == [word[0] for word in WORDS]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_windows_label_every_word_somewhere(architecture: str) -> None:
    long = TokenExample(WORDS * 8, TAGS * 8, "f:1")
    rows = encode(tiny_tokenizer(architecture).backend_tokenizer, [long], max_length=32, stride=8)
    assert fitted(rows).strided == 1
    found = targets([long], rows, LABELS)
    people = sum(int((t == LABELS.index("B-PER")).sum()) for t in found)
    assert people >= 8


def test_span_targets_decode_to_the_answer() -> None:
    context = "Le petit marché du village ouvre dès l'aube, bien avant l'école. " * 3
    start = context.rindex("l'aube")
    asked = SpanExample("1", "Quand ?", context, (("l'aube", start),), "f:1")
    rows = encode(tiny_tokenizer().backend_tokenizer, [asked], max_length=48, stride=12)
    assert len(rows) > 1
    spans = targets([asked], rows, ())
    found = [(r, s) for r, s in zip(rows, spans, strict=True) if s != (0, 0)]
    assert found
    for window, (first, last) in found:
        assert context[window.offsets[first, 0] : window.offsets[last, 1]] == "l'aube"


def test_a_question_without_room_names_its_file() -> None:
    asked = SpanExample("1", "Quand " * 40, "À l'aube.", (), "f.jsonl:1")
    with pytest.raises(InputError, match=r"^f\.jsonl:1: question"):
        encode(tiny_tokenizer().backend_tokenizer, [asked], max_length=32, stride=8)


def test_texts_and_pairs() -> None:
    texts = [TextExample("Le train. " * 30, "b", "f:1"), TextExample("Le train.", "a", "f:2")]
    rows = encode(tiny_tokenizer().backend_tokenizer, texts, max_length=16, stride=4)
    assert fitted(rows).truncated == 1
    assert targets(texts, rows, ("a", "b")) == [1, 0]
    pairs = [PairExample("Le train.", "La pluie.", "b", "f:1")]
    (both,) = encode(tiny_tokenizer("bert").backend_tokenizer, pairs, max_length=32, stride=4)
    assert set(both.type_ids) == {0, 1}
    several = [MultiLabelExample("Le train.", ("c", "a"), "f:1"), MultiLabelExample("Le train.", (), "f:2")]
    rows = encode(tiny_tokenizer().backend_tokenizer, several, max_length=16, stride=4)
    assert [t.tolist() for t in targets(several, rows, ("a", "b", "c"))] == [[1, 0, 1], [0, 0, 0]]
    one, two = (
        RegressionExample("Le train.", None, 2.5, "f:1"),
        RegressionExample("Le train.", "La pluie.", -1.0, "f:1"),
    )
    (alone,) = encode(tiny_tokenizer("bert").backend_tokenizer, [one], max_length=32, stride=4)
    (paired,) = encode(tiny_tokenizer("bert").backend_tokenizer, [two], max_length=32, stride=4)
    assert set(alone.type_ids) == {0}
    assert paired.input_ids.tolist() == both.input_ids.tolist()
    assert targets([one], [alone], ("value",)) == [2.5]
    assert encode(tiny_tokenizer().backend_tokenizer, [], max_length=16, stride=4) == []


def test_padding() -> None:
    rows = [row(2), row(4)]
    batch = pad_rows(rows, pad_id=1)
    assert batch["input_ids"].tolist() == [[7, 7, 1, 1], [7, 7, 7, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert set(batch) == {"input_ids", "attention_mask"}
    assert pad_rows(rows, pad_id=1, labels=[3, 4])["labels"].tolist() == [3, 4]
    tags = [np.array([5, 6]), np.array([1, 2, 3, 4])]
    batch = pad_rows(rows, pad_id=1, with_types=True, labels=tags)
    assert batch["labels"].tolist() == [[5, 6, IGNORED, IGNORED], [1, 2, 3, 4]]
    assert batch["token_type_ids"].shape == (2, 4)
    spans = pad_rows(rows, pad_id=1, labels=[(0, 0), (1, 3)])
    assert (spans["start_positions"].tolist(), spans["end_positions"].tolist()) == ([0, 1], [0, 3])
    assert all(t.dtype == torch.int64 for t in [*batch.values(), *spans.values()])
    several = pad_rows(rows, pad_id=1, labels=[np.array([1, 0, 1], np.float32), np.zeros(3, np.float32)])["labels"]
    assert (several.dtype, several.tolist()) == (torch.float32, [[1, 0, 1], [0, 0, 0]])
    numbers = pad_rows(rows, pad_id=1, labels=[2.5, -1.0])["labels"]
    assert (numbers.dtype, numbers.tolist()) == (torch.float32, [2.5, -1.0])


@pytest.mark.parametrize(("count", "size"), [(1, 4), (4, 4), (403, 4), (1000, 16), (3, 1)])
def test_length_groups(count: int, size: int) -> None:
    lengths = np.random.default_rng(1).integers(3, 200, count).tolist()
    order = LengthGroups(lengths, size, seed=5)
    first = list(order)
    assert sorted(first) == list(range(count))
    assert first == list(order)
    assert first == list(LengthGroups(lengths, size, seed=5))
    batches = [[lengths[i] for i in first[at : at + size]] for at in range(0, count, size)]
    if count > 100:
        padded = sum(max(b) * len(b) for b in batches)
        assert padded < 1.1 * sum(lengths)
        order.set_epoch(1)
        assert list(order) != first
        assert max(batches[0]) == max(max(b) for b in batches[:-1])


def test_labelled_rows() -> None:
    rows = LabelledRows([row(2), row(3)], [1, 0], pad_id=1, with_types=False)
    assert len(rows) == 2
    assert rows.lengths == [2, 3]
    batch = rows.collate([rows[0], rows[1]])
    assert batch["input_ids"].shape == (2, 3)
    assert batch["labels"].tolist() == [1, 0]
