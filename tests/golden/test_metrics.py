"""Metrics against scikit-learn, seqeval, and SQuAD values worked out by hand from the official definition."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score as seqeval_f1
from sklearn.metrics import f1_score as sklearn_f1

from affinage.errors import InputError
from affinage.evaluation.intervals import bootstrap_interval, resampled_scores
from affinage.evaluation.metrics import METRICS, metric, normalise_answer, normalise_french_answer

CLASSES = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=30)


@given(CLASSES)
def test_accuracy_and_macro_f1_are_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    predictions, references = [p for p, _ in pairs], [r for _, r in pairs]
    assert metric("accuracy").score(predictions, references) == pytest.approx(np.mean([p == r for p, r in pairs]))
    expected = sklearn_f1(references, predictions, average="macro", zero_division=0.0)
    assert metric("macro_f1").score(predictions, references) == pytest.approx(expected)


TAG = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
SENTENCES = st.lists(st.lists(st.tuples(TAG, TAG), min_size=1, max_size=8), min_size=1, max_size=6)


@given(SENTENCES)
@settings(deadline=None)
def test_entity_f1_is_seqevals(sentences: list[list[tuple[str, str]]]) -> None:
    predictions = [[p for p, _ in s] for s in sentences]
    references = [[r for _, r in s] for s in sentences]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns where there are no entities
        expected = seqeval_f1(references, predictions)
    assert metric("entity_f1").score(predictions, references) == pytest.approx(expected)


def test_entity_f1_on_hand_written_cases() -> None:
    references = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG", "I-ORG"]]
    predictions = [["B-PER", "O", "O", "B-LOC"], ["O", "I-ORG", "I-ORG"]]
    # Predicted: PER 0, LOC 3 (right), ORG 1-2 (right, its B- missing): P = 2/3, R = 2/3.
    assert metric("entity_f1").score(predictions, references) == pytest.approx(2 / 3)
    assert seqeval_f1(references, predictions) == pytest.approx(2 / 3)


def test_token_overlap_f1_gives_credit_for_part_of_an_entity() -> None:
    references = [["B-PER", "I-PER", "I-PER", "O", "B-LOC"]]
    predictions = [["O", "B-PER", "I-PER", "B-PER", "B-ORG"]]
    # Words in common: 1 and 2 as PER. Predicted 4 (1, 2, 3 PER; 4 ORG), reference 4: F1 = 2·2 / 8.
    assert metric("token_overlap_f1").score(predictions, references) == pytest.approx(0.5)
    assert metric("entity_f1").score(predictions, references) == 0
    # B- and I- of the same type are one: the boundaries are not looked at.
    assert metric("token_overlap_f1").score([["B-X", "B-X"]], [["B-X", "I-X"]]) == 1


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1, 1),  # article, case, punctuation
        ("a tower", ["the tower"], 1, 1),
        ("U.S.A.", ["USA"], 1, 1),  # punctuation vanishes: it does not separate
        ("well-known", ["well known"], 0, 0),
        ("in the city of Paris", ["Paris"], 0, 2 * (1 / 4) * 1 / (1 / 4 + 1)),  # in city of paris: P 1/4, R 1
        ("Paris Paris", ["Paris"], 0, 2 * (1 / 2) * 1 / (1 / 2 + 1)),  # a multiset: one in common of two
        ("Lyon", ["Paris", "Lyon", "lyon, France"], 1, 1),  # the best over the answers
        ("Lyon France", ["Paris", "in Lyon"], 0, 2 * (1 / 2) * (1 / 2) / 1),
        ("", [""], 1, 1),  # SQuAD 2.0: no answer, rightly
        ("", [], 1, 1),
        ("Paris", [], 0, 0),
        ("", ["Paris"], 0, 0),
        ("the", ["a"], 1, 1),  # both empty once normalised
        ("École", ["école"], 1, 1),  # unicode lower case
        ("cafe", ["café"], 0, 0),  # accents count
        ("« oui »", ["oui"], 0, 2 * (1 / 3) * 1 / (1 / 3 + 1)),  # French quotation marks are not ASCII: they stay
        ("l'État", ["État"], 0, 0),  # apostrophe vanishes: "létat"
        ("theatre another", ["theatre another"], 1, 1),
    ],
)
def test_squad_by_hand(prediction: str, answers: list[str], exact: float, f1: float) -> None:
    assert metric("exact_match").score([prediction], [answers]) == exact
    assert metric("f1").score([prediction], [answers]) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "f1"),
    [
        ("l'État", ["État"], 1, 1),
        ("L’école", ["une école"], 1, 1),
        ("« oui »", ["oui"], 1, 1),
        ("les rois", ["des rois de France"], 0, 2 * 1 * (1 / 3) / (1 + 1 / 3)),
        ("d'octobre", ["octobre"], 1, 1),
        ("le", ["la"], 1, 1),
    ],
)
def test_french_answers_by_hand(prediction: str, answers: list[str], exact: float, f1: float) -> None:
    assert metric("exact_match_fr").score([prediction], [answers]) == exact
    assert metric("f1_fr").score([prediction], [answers]) == pytest.approx(f1)


def test_normalisations() -> None:
    assert normalise_answer("  The  U.S.' (an) elephant\n") == "us elephant"
    assert normalise_french_answer("L'école de l’État — « le » 1er") == "école de état 1er"


def test_unknown_names_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown metric 'acuracy'\. Did you mean 'accuracy'"):
        metric("acuracy")
    with pytest.raises(InputError, match="2 predictions for 1 references"):
        metric("accuracy").score(["a", "b"], ["a"])
    with pytest.raises(InputError, match="0 predictions"):
        metric("f1").score([], [])
    with pytest.raises(InputError, match="sentence 1: 1 predicted tags for 2 words"):
        metric("entity_f1").score([["O"], ["O"]], [["O"], ["O", "O"]])


SAMPLES = {
    "accuracy": (list("aabbc") * 8, list("ababc") * 8),
    "entity_f1": ([["B-X", "O"], ["B-X", "I-X"], ["O", "O"]] * 9, [["B-X", "O"], ["B-X", "O"], ["O", "B-X"]] * 9),
    "f1": (["a b", "c", ""] * 9, [["b"], ["d"], [""]] * 9),
} | {"macro_f1": (list("aabbc") * 8, list("ababb") * 8)}
SAMPLES |= {
    "micro_f1": ([("a",), ("a", "b"), ()] * 9, [("a",), ("b",), ("a", "c")] * 9),
    "pearson": ([1.0, 2.5, 2.5, 4.0, 0.5] * 8, [0.0, 3.0, 2.0, 5.0, 1.0] * 8),
}
LIKE = {"token_overlap_f1": "entity_f1", "exact_match": "f1", "exact_match_fr": "f1", "f1_fr": "f1"}
LIKE |= {"matthews": "macro_f1", "subset_accuracy": "micro_f1", "spearman": "pearson", "f1:a": "micro_f1"}
LIKE |= {"mean(accuracy, f1:a)": "accuracy"}
SAMPLES["squad2"] = (["a b", "c", "", ""] * 9, [["b"], [], ["d"], []] * 9)
LIKE |= dict.fromkeys(("has_answer_f1", "has_answer_exact_match", "no_answer_accuracy"), "squad2")


@pytest.mark.parametrize("name", [*METRICS, "f1:a", "mean(accuracy, f1:a)"])
def test_a_resample_scores_what_the_resampled_examples_score(name: str) -> None:
    """The matrix product against the metric itself, on the examples that the weights stand for."""
    exactly = 1e-6 if name != "spearman" else 0.05  # which is so to first order: tests/golden/test_correlations.py
    predictions, references = SAMPLES[LIKE.get(name, name)]
    if metric(name).of_some:  # the others have no rows
        kept = [i for i, answers in enumerate(references) if bool(answers) == name.startswith("has_answer")]
        predictions, references = [predictions[i] for i in kept], [references[i] for i in kept]
    n = len(references)
    scores = resampled_scores(metric(name), metric(name).rows(predictions, references), samples=5, seed=3)
    weights = np.random.default_rng(3).multinomial(n, np.full(n, 1 / n), size=5)
    for score, row in zip(scores, weights, strict=True):
        chosen = np.repeat(np.arange(n), row)
        again = metric(name).score([predictions[i] for i in chosen], [references[i] for i in chosen])
        assert score == pytest.approx(again, abs=exactly)
    low, high = bootstrap_interval(metric(name), predictions, references)
    assert (low, high) == bootstrap_interval(metric(name), predictions, references)
    assert metric(name).lowest <= low <= metric(name).score(predictions, references) <= high <= 1


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    random, hits = np.random.default_rng(0), 0
    for trial in range(300):
        right = random.random(200) < 0.8
        low, high = bootstrap_interval(
            metric("accuracy"), right.astype(int).tolist(), [1] * 200, samples=400, seed=trial, level=0.9
        )
        hits += low <= 0.8 <= high
    assert 0.85 <= hits / 300 <= 0.94
