"""Targets turned back into logits and decoded give the references: nothing is lost between training and scoring.

On real French text with CamemBERT's own pieces, where the shared data is. What is left below 1 is pieces that hold more
than the answer ("(14", "2001,") or two words; the bounds are a little below what was measured on the whole parts.
"""

import numpy as np
import pytest
from tokenizers import Tokenizer

from affinage.data.encoding import first_token_of_words
from affinage.data.examples import SpanExample, TokenExample, labels_of, read_examples
from affinage.data.features import encode, stride_for, targets
from affinage.data.task import load_task
from affinage.data.words import join_words
from affinage.decoding.entities import word_tags, words_over_windows
from affinage.decoding.spans import SpanWindow, best_answers
from affinage.evaluation.metrics import metric
from shared_data import DATA, needs_shared_data

pytestmark = needs_shared_data


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(DATA / "tokenizers/camembert/tokenizer.json"))


@pytest.mark.parametrize("max_length", [256, 96])
def test_answers_come_back(tokenizer: Tokenizer, max_length: int) -> None:
    read = read_examples(load_task("qa"), DATA / "fr/qa/piaf/test.jsonl.gz")
    examples = [e for e in read if isinstance(e, SpanExample)]
    rows = encode(tokenizer, examples, max_length=max_length, stride=stride_for(max_length))
    windows: list[list[SpanWindow]] = [[] for _ in examples]
    for row, target in zip(rows, targets(examples, rows, ()), strict=True):
        assert isinstance(target, tuple)
        start, end = np.zeros(len(row.input_ids)), np.zeros(len(row.input_ids))
        start[target[0]] = end[target[1]] = 9
        windows[row.example].append(SpanWindow(start, end, row.offsets, row.sequence_ids == 1))
    found = [best_answers(w, e.context, n_best=1)[0]["answer"] for w, e in zip(windows, examples, strict=True)]
    answers = [tuple(text for text, _ in e.answers) for e in examples]
    assert metric("exact_match").score(found, answers) > 0.995
    assert np.mean([f in a for f, a in zip(found, answers, strict=True)]) > 0.975


@pytest.mark.parametrize("max_length", [256, 32])
def test_tags_come_back(tokenizer: Tokenizer, max_length: int) -> None:
    task = load_task("ner")
    read = read_examples(task, DATA / "fr/ner/wikineural/test.jsonl.gz", limit=1500)
    examples = [e for e in read if isinstance(e, TokenExample)]
    labels = labels_of(task, examples)
    rows = encode(tokenizer, examples, max_length=max_length, stride=stride_for(max_length))
    windows: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in examples]
    for row, target in zip(rows, targets(examples, rows, labels), strict=True):
        assert isinstance(target, np.ndarray)
        logits = np.zeros((len(target), len(labels)))
        labelled = np.flatnonzero(target >= 0)
        logits[labelled, target[labelled]] = 9
        _, spans = join_words(examples[row.example].words)
        windows[row.example].append((first_token_of_words(row, spans), logits))
    found = []
    for seen, example in zip(windows, examples, strict=True):
        probabilities, covered = words_over_windows(seen, words=len(example.words), classes=len(labels))
        assert covered.all()
        found.append(word_tags(probabilities, covered, labels))
    assert metric("entity_f1").score(found, [e.tags for e in examples]) > 0.997
