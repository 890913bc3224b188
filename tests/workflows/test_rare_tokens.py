"""With `masking.smoothing` the counts are those of the text that is trained on, and the same when a run is resumed."""

from pathlib import Path

import numpy as np
import pytest

from affinage.data.corpus import corpus_files
from affinage.data.rows import PackedRows
from affinage.data.streams import as_stream
from affinage.errors import InputError
from affinage.recipe import Recipe, Stage
from affinage.signals import IGNORED
from affinage.workflows.corpus_stage import CorpusRows, corpus_rows
from affinage.workflows.distil import distil
from tiny import save_tiny, tiny_tokenizer
from tiny_data import ON_TEXT, write_corpus

TOKENIZER = tiny_tokenizer()
SMALL = {**ON_TEXT, "training.gradient_accumulation_steps": "1"}


def stage(**overrides: str) -> Stage:
    return Recipe.load("distilroberta", {**SMALL, **overrides}).stages[0]


def rows(folder: Path, corpus: Path, **overrides: str) -> CorpusRows:
    files, asked = corpus_files([corpus]), stage(**overrides)
    return corpus_rows(files, TOKENIZER, asked, folder=folder, stream=as_stream(files, asked))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", lines=200)


def test_counts_are_those_of_the_training_text_in_both_parts(corpus: Path, tmp_path: Path) -> None:
    found = rows(tmp_path / "tokens", corpus)
    assert isinstance(found.train, PackedRows)
    counts = np.zeros(len(TOKENIZER))
    for number in found.train.store.ids:
        counts[number] += 1
    for part in (found.train, found.held_out):
        assert part.masker.weights is not None
        np.testing.assert_allclose(part.masker.weights, np.maximum(counts, 1) ** -0.7)


def test_rare_tokens_are_hidden_more_often_than_frequent_ones(corpus: Path, tmp_path: Path) -> None:
    shares = {}
    for smoothing in ("0.7", "null"):
        train = rows(tmp_path / "tokens", corpus, **{"masking.smoothing": smoothing}).train
        labels = np.concatenate([train[epoch, row][2] for epoch in range(10) for row in range(len(train))])
        hidden = np.bincount(labels[labels != IGNORED], minlength=len(TOKENIZER))
        counts = train.store.counts(len(TOKENIZER))
        rare = (counts > 0) & (counts <= np.median(counts[counts > 0]))
        shares[smoothing] = hidden[rare].sum() / (10 * counts[rare].sum())
    assert shares["0.7"] > 1.3 * shares["null"]


def test_of_a_stream_the_counts_are_a_samples_and_the_same_for_all_blocks(corpus: Path, tmp_path: Path) -> None:
    streamed = {"streaming": "true", "block_tokens": "1000", "training.max_steps": "20"}
    weights = []
    for folder in ("one", "two", "one"):  # the third time: resumed
        found = rows(tmp_path / folder, corpus, **streamed)
        assert found.held_out.masker.weights is not None
        weights.append(found.held_out.masker.weights)
    np.testing.assert_array_equal(weights[0], weights[1])
    np.testing.assert_array_equal(weights[0], weights[2])
    assert len(np.unique(weights[0])) > 5


def test_whole_words_cannot_be_weighed_token_by_token() -> None:
    with pytest.raises(InputError, match=r"stages\.0\.masking: .* leave one of them out"):
        Recipe.load("distilroberta", {"masking.whole_words": "true"})


def test_a_distillation_with_smoothing_runs(corpus: Path, tmp_path: Path) -> None:
    teacher = save_tiny(tmp_path, "roberta")
    report = distil(teacher, corpus=[corpus], out=tmp_path / "out", recipe="distilroberta", overrides=SMALL, quiet=True)
    assert report.training is not None and {"soft_kl", "mlm", "cosine_distance"} < set(report.training.losses)
