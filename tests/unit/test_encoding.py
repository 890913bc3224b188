"""Rows are what the tokenizer itself would make; windows cover the text; offsets point at the characters."""

import gzip
import itertools
import json
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from affinage.data.encoding import (
    Row,
    encode_ids,
    encode_pairs,
    encode_questions,
    encode_texts,
    encode_windows,
    first_token_of_words,
    longest_question,
    span_target,
    template_of,
)
from affinage.data.words import split_words
from affinage.errors import InputError
from affinage.evaluation.metrics import normalise_answer
from shared_data import DATA, needs_shared_data
from tiny import SENTENCES, tiny_tokenizer

KINDS = ("camembert", "roberta", "bert")
PIAF = DATA / "fr/qa/piaf"
CAMEMBERT = DATA / "tokenizers/camembert/tokenizer.json"
LONG = " ".join(SENTENCES)


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    found: Tokenizer = tiny_tokenizer(request.param).backend_tokenizer
    return found


def test_rows_that_fit_are_the_tokenizers_own(tokenizer: Tokenizer) -> None:
    texts = [*SENTENCES, "", "é"]
    for row, text in zip(encode_texts(tokenizer, texts, max_length=500), texts, strict=True):
        own = tokenizer.encode(text)
        assert row.input_ids.tolist() == own.ids
        assert row.type_ids.tolist() == own.type_ids
        assert row.sequence_ids.tolist() == [-1 if s is None else s for s in own.sequence_ids]
        assert not row.truncated
    pairs = list(zip(SENTENCES, reversed(SENTENCES), strict=True))
    for row, (a, b) in zip(encode_pairs(tokenizer, pairs, max_length=500), pairs, strict=True):
        own = tokenizer.encode(a, b)
        assert row.input_ids.tolist() == own.ids
        assert row.type_ids.tolist() == own.type_ids
        assert row.sequence_ids.tolist() == [-1 if s is None else s for s in own.sequence_ids]


@pytest.mark.parametrize("max_length", [8, 15, 31, 40, 60])
def test_cut_rows_are_the_tokenizers_own_longest_first(tokenizer: Tokenizer, max_length: int) -> None:
    cutting = Tokenizer.from_str(tokenizer.to_str())
    cutting.enable_truncation(max_length, strategy="longest_first")
    pairs = [(SENTENCES[0], "non"), ("non", SENTENCES[1]), (SENTENCES[2], SENTENCES[3]), (LONG, SENTENCES[4])]
    for row, (a, b) in zip(encode_pairs(tokenizer, pairs, max_length=max_length), pairs, strict=True):
        assert row.input_ids.tolist() == cutting.encode(a, b).ids
        assert row.truncated == (len(tokenizer.encode(a, b).ids) > max_length)
    for row, text in zip(encode_texts(tokenizer, [LONG, "non"], max_length=max_length), [LONG, "non"], strict=True):
        assert row.input_ids.tolist() == cutting.encode(text).ids
        assert row.truncated == (text == LONG)


def test_the_callers_settings_are_neither_used_nor_changed() -> None:
    tokenizer = Tokenizer.from_str(tiny_tokenizer("camembert").backend_tokenizer.to_str())
    expected = encode_texts(tokenizer, [LONG], max_length=400)[0]
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=50)
    settings = (tokenizer.truncation, tokenizer.padding)
    row = encode_texts(tokenizer, [LONG], max_length=400)[0]
    assert row.input_ids.tolist() == expected.input_ids.tolist()
    assert (tokenizer.truncation, tokenizer.padding) == settings


@pytest.mark.parametrize("stride", [0, 3, 10])
def test_windows_cover_every_token_and_share_the_stride(tokenizer: Tokenizer, stride: int) -> None:
    whole = tokenizer.encode(LONG, add_special_tokens=False).ids
    rows = encode_windows(tokenizer, [LONG], max_length=24, stride=stride)
    contents = [row.input_ids[row.sequence_ids == 0].tolist() for row in rows]
    rebuilt = contents[0]
    for previous, content in itertools.pairwise(contents):
        assert content[:stride] == previous[len(previous) - stride :]
        assert len(content) > stride
        rebuilt = rebuilt + content[stride:]
    assert rebuilt == whole
    assert all(len(row.input_ids) <= 24 for row in rows)


def test_windows_of_a_context_hold_the_whole_question(tokenizer: Tokenizer) -> None:
    question, context = "Qui a quitté Lyon ?", LONG
    rows = encode_questions(tokenizer, [question], [context], max_length=64, stride=10)
    asked = tokenizer.encode(question, add_special_tokens=False).ids
    assert len(rows) > 1
    for row in rows:
        assert row.input_ids[row.sequence_ids == 0].tolist() == asked
        assert len(row.input_ids) <= 64


def test_a_question_that_leaves_no_room_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"question 1 .*shorter question"):
        encode_questions(tokenizer, ["Qui ?", LONG], [LONG, LONG], max_length=64, stride=8)
    with pytest.raises(InputError, match="leaves no room"):
        encode_texts(tokenizer, ["a"], max_length=2)


def test_a_long_question_makes_few_windows(tokenizer: Tokenizer) -> None:
    """However little of a row it leaves, neighbours share half of that at most: the text bounds the work."""
    most = longest_question(template_of(tokenizer, 2), 64)
    asked = [" ".join(["oui"] * words) for words in range(1, most + 1)]
    asked = [text for text in asked if len(tokenizer.encode(text, add_special_tokens=False).ids) <= most]
    assert len(tokenizer.encode(asked[-1], add_special_tokens=False).ids) > most - 4
    rows = encode_questions(tokenizer, asked, [LONG] * len(asked), max_length=64, stride=16)
    windows = np.bincount([row.example for row in rows])
    assert windows.max() <= 2 * len(tokenizer.encode(LONG).ids) / 16 + 1


AWKWARD = "  L'été\u00a0: e\u0301cole 😀👩🏽 « naïf »\tfin\n"


def test_offsets_are_of_the_original_characters(tokenizer: Tokenizer) -> None:
    row = encode_windows(tokenizer, [AWKWARD], max_length=200, stride=0)[0]
    for start, end in row.offsets:
        piece = AWKWARD[start:end]
        assert piece == piece.strip()
    real = row.offsets[row.offsets[:, 1] > row.offsets[:, 0]]
    assert {i for a, b in real for i in range(a, b)} >= {i for i, c in enumerate(AWKWARD) if c.isalpha()}


def test_first_tokens_cover_the_first_character_of_each_word(tokenizer: Tokenizer) -> None:
    spans = split_words(LONG)
    rows = encode_windows(tokenizer, [LONG], max_length=24, stride=6)
    found = np.zeros(len(spans), bool)
    for row in rows:
        first = first_token_of_words(row, spans)
        for (start, _), token in zip(spans, first, strict=True):
            if token >= 0:
                assert row.offsets[token, 0] <= start < row.offsets[token, 1]
                assert token == 0 or row.offsets[token - 1, 1] <= start or row.sequence_ids[token - 1] < 0
        found |= first >= 0
    assert found.all()


def test_the_mark_before_the_first_word_is_not_its_first_letter() -> None:
    tokenizer = tiny_tokenizer("camembert").backend_tokenizer
    row = encode_texts(tokenizer, ["Zoé"], max_length=20)[0]
    assert tokenizer.encode("Zoé").tokens[1] == "▁"
    assert row.offsets[1].tolist() == [0, 0]
    assert first_token_of_words(row, [(0, 3)]).tolist() == [2]


def test_span_target_outside_of_the_window_is_cls(tokenizer: Tokenizer) -> None:
    rows = encode_questions(tokenizer, ["Qui ?"], [LONG], max_length=40, stride=12)
    answer = "Bordeaux"
    start = LONG.index(answer)
    inside = [span_target(row, start, answer) for row in rows]
    assert (0, 0) in inside
    assert any(span != (0, 0) for span in inside)
    for row, (first, last) in zip(rows, inside, strict=True):
        if (first, last) != (0, 0):
            assert LONG[row.offsets[first, 0] : row.offsets[last, 1]] == answer
    assert span_target(rows[0], 0, "") == (0, 0)


@lru_cache
def _piaf() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for part in ("train", "valid", "test"):
        with gzip.open(PIAF / f"{part}.jsonl.gz", "rt", encoding="utf-8") as file:
            rows += [json.loads(line) for line in file]
    return rows


def _small_unigram() -> Tokenizer:
    """Metaspace and punctuation apart, as `affinage pretrain` makes them."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    contexts = sorted({row["context"] for row in _piaf()})[::3]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=8000, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(contexts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


@needs_shared_data
@pytest.mark.parametrize(("which", "window"), [("unigram", (384, 128)), ("camembert", (128, 32))])
def test_span_targets_of_the_whole_of_piaf_are_the_answers(which: str, window: tuple[int, int]) -> None:
    """9,572 answers. Every exception is an answer that begins or ends within a piece, as "4" of "4,5" does."""
    tokenizer = _small_unigram() if which == "unigram" else Tokenizer.from_file(str(CAMEMBERT))
    data = _piaf()
    rows = encode_questions(
        tokenizer, [d["question"] for d in data], [d["context"] for d in data], max_length=window[0], stride=window[1]
    )
    found: dict[tuple[int, int], tuple[str, bool]] = {}
    for row in rows:
        context, answers = data[row.example]["context"], data[row.example]["answers"]
        for k, (text, start) in enumerate(zip(answers["text"], answers["answer_start"], strict=True)):
            first, last = span_target(row, start, text)
            if (first, last) != (0, 0):
                a, b = int(row.offsets[first, 0]), int(row.offsets[last, 1])
                found[row.example, k] = (context[a:b], _within_a_piece(row, start, text))
    expected = {(i, k): text for i, d in enumerate(data) for k, text in enumerate(d["answers"]["text"])}
    for missing in set(expected) - set(found):  # only an answer longer than what windows share can be in none
        assert len(tokenizer.encode(expected[missing], add_special_tokens=False).ids) >= window[1] - 2
    unlike = {key for key in found if normalise_answer(found[key][0]) != normalise_answer(expected[key])}
    assert (len(unlike) + len(expected) - len(found)) / len(expected) < 0.01
    assert all(found[key][1] for key in unlike)
    exact = sum(found[key][0] == text.strip() for key, text in expected.items() if key in found)
    assert exact / len(expected) > (0.99 if which == "unigram" else 0.97)


def _within_a_piece(row: Row, start: int, text: str) -> bool:
    """Whether an end of the answer lies strictly inside a token of the context."""
    context = row.offsets[row.sequence_ids == 1]
    edges = (start + len(text) - len(text.lstrip()), start + len(text.rstrip()))
    return any(a < edge < b for edge in edges for a, b in context)


@pytest.mark.parametrize("architecture", ["camembert", "bert", "roberta"])
@pytest.mark.parametrize("max_length", [8, 21, 64])
def test_ids_alone_are_those_of_whole_rows(architecture: str, max_length: int) -> None:
    tokenizer = tiny_tokenizer(architecture).backend_tokenizer
    pairs = list(zip(SENTENCES, SENTENCES[3:] + SENTENCES[:3], strict=True))
    whole = encode_texts(tokenizer, list(SENTENCES), max_length=max_length)
    whole += encode_pairs(tokenizer, pairs, max_length=max_length)
    bare = encode_ids(tokenizer, list(SENTENCES), max_length=max_length)
    bare += encode_ids(tokenizer, pairs, max_length=max_length)
    for row, wanted in zip(bare, whole, strict=True):
        assert (row.example, row.truncated) == (wanted.example, wanted.truncated)
        np.testing.assert_array_equal(row.input_ids, wanted.input_ids)
        np.testing.assert_array_equal(row.type_ids, wanted.type_ids)
