"""Decoding against values worked out by hand, and against seqeval's own reading of tags."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from affinage.decoding.entities import Entity, bio_chunks, find_entities, words_over_windows
from affinage.decoding.fill_mask import best_tokens
from affinage.decoding.labels import ranked_labels, softmax
from affinage.decoding.spans import SpanWindow, best_answers
from affinage.decoding.zero_shot import (
    NliClasses,
    entailment_logits,
    entailment_probability_softmax,
    fill_template,
    multi_label,
    nli_classes,
    zero_shot_method,
)
from affinage.errors import InputError


def test_softmax_is_exact_and_does_not_overflow() -> None:
    assert softmax(np.log([1.0, 2.0, 5.0])) == pytest.approx([0.125, 0.25, 0.625])
    assert softmax(np.array([1000.0, 1000.0])) == pytest.approx([0.5, 0.5])


def test_ranked_labels() -> None:
    ranked = ranked_labels(np.log([0.2, 0.7, 0.1]), ["a", "b", "c"], top_k=2)
    assert [r["label"] for r in ranked] == ["b", "a"]
    assert [r["score"] for r in ranked] == pytest.approx([0.7, 0.2])


TAGS = st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-X-Y", "I-X-Y"]), max_size=12)


@given(TAGS)
def test_bio_chunks_are_seqevals(tags: list[str]) -> None:
    assert [(c.kind, c.first, c.end - 1) for c in bio_chunks(tags)] == get_entities(tags)


def test_bio_chunks_by_hand() -> None:
    assert bio_chunks(["I-PER", "I-PER", "B-PER", "I-LOC", "O", "ORG", "ORG"]) == [
        ("PER", 0, 2),
        ("PER", 2, 3),
        ("LOC", 3, 4),
        ("ORG", 5, 7),
    ]


def test_entities_have_character_offsets_and_the_mean_probability() -> None:
    text = "À Aix-en-Provence, l'Élysée"
    spans = [(0, 1), (2, 17), (17, 18), (19, 21), (21, 27)]
    names = ["O", "B-LOC", "I-LOC"]
    p = np.array([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.8, 0.1, 0.1], [0.1, 0.6, 0.3], [0.1, 0.1, 0.8]])
    found = find_entities(text, spans, p, np.ones(5, bool), names)
    assert found == [
        Entity(entity_group="LOC", score=pytest.approx(0.7), word="Aix-en-Provence", start=2, end=17),
        Entity(entity_group="LOC", score=pytest.approx(0.7), word="l'Élysée", start=19, end=27),
    ]
    assert all(text[e["start"] : e["end"]] == e["word"] for e in found)
    unseen = find_entities(text, spans, p, np.array([True, False, True, True, True]), names)
    assert [e["word"] for e in unseen] == ["l'Élysée"]


def test_a_word_is_read_in_the_window_where_it_stands_farthest_from_an_edge() -> None:
    left, right = np.zeros((6, 2)), np.zeros((6, 2))
    left[:, 0], right[:, 1] = 5.0, 5.0  # the left window says class 0, the right one class 1
    first_left, first_right = np.array([1, 3, 4, -1]), np.array([-1, 1, 2, 4])
    p, seen = words_over_windows([(first_left, left), (first_right, right)], words=4, classes=2)
    assert p.argmax(axis=1).tolist() == [0, 0, 1, 1]
    assert seen.all()
    assert not words_over_windows([], words=2, classes=3)[1].any()


def _window(start: list[float], end: list[float], offsets: list[tuple[int, int]]) -> SpanWindow:
    """<cls>, one question token, then the context's tokens."""
    where = np.array([(0, 0), (0, 3), *offsets])
    context = np.array([False, False] + [True] * len(offsets))
    return SpanWindow(np.array(start), np.array(end), where, context)


CONTEXT = "Un deux trois quatre"
OFFSETS = [(0, 2), (3, 7), (8, 13), (14, 20)]


def test_the_best_span_never_ends_before_it_starts_and_is_in_the_context() -> None:
    window = _window([9.0, 9.0, 0.0, 1.0, 4.0, 0.0], [9.0, 9.0, 5.0, 1.0, 0.0, 2.0], OFFSETS)
    best = best_answers([window], CONTEXT, n_best=3)
    # spans: un (0+5=5), trois quatre (4+2=6), trois (4+0=4); "trois … un" would be 4+5=9
    assert [(a["answer"], a["start"], a["end"]) for a in best] == [
        ("trois quatre", 8, 20),
        ("Un", 0, 2),
        ("trois", 8, 13),
    ]
    assert [a["score"] for a in best] == pytest.approx(list(softmax(np.array([6.0, 5.0, 4.0]))))
    assert best_answers([window], CONTEXT, max_answer_length=1, n_best=1)[0]["answer"] == "Un"


def test_windows_are_merged_and_the_same_span_counts_once() -> None:
    one = _window([0.0, 0.0, 0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0, 0.0, 0.0], OFFSETS)
    two = _window([0.0, 0.0, 5.0, 0.0, 0.0], [0.0, 0.0, 5.0, 0.0, 0.0], OFFSETS[1:])
    best = best_answers([one, two], CONTEXT, n_best=20)
    assert best[0]["answer"] == "deux"
    assert [a["answer"] for a in best].count("deux") == 1
    alone = best_answers([two], CONTEXT, n_best=1)[0]
    assert (alone["start"], alone["end"], alone["score"]) == (3, 7, 1.0)


def test_no_answer_scores_cls_at_its_lowest_over_the_windows() -> None:
    one = _window([4.0, 0, 1, 0, 0, 0], [4.0, 0, 1, 0, 0, 0], OFFSETS)
    two = _window([3.0, 0, 0, 0, 0], [2.0, 0, 0, 0, 0], OFFSETS[1:])
    best = best_answers([one, two], CONTEXT, n_best=2, allow_no_answer=True)
    assert (best[0]["answer"], best[0]["start"], best[0]["end"]) == ("", 0, 0)
    assert best[0]["score"] == pytest.approx(1 / (1 + np.exp(2.0 - 5.0)))
    assert best_answers([one, two], CONTEXT, n_best=2)[0]["answer"] == "Un"


LOGITS = np.log([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])
CLASSES = NliClasses(entailment=0, contradiction=2)


def test_zero_shot_methods_by_hand() -> None:
    assert entailment_logits(LOGITS, CLASSES) == pytest.approx([0.75, 0.25])  # 0.6 : 0.2
    flat = np.exp([0.6, 0.2]) / np.exp([0.6, 0.2]).sum()  # equation 15 as printed
    assert entailment_probability_softmax(LOGITS, CLASSES) == pytest.approx(flat)
    assert multi_label(LOGITS, CLASSES) == pytest.approx([6 / 7, 2 / 7])


def test_zero_shot_names_and_templates() -> None:
    assert nli_classes(["CONTRADICTION", "neutral", "Entailment"]) == (2, 0)
    assert nli_classes(["entailment", "not_entailment"]) == (0, None)
    with pytest.raises(InputError, match="label called entailment"):
        nli_classes(["positive", "negative"])
    with pytest.raises(InputError, match="label called contradiction"):
        multi_label(LOGITS, NliClasses(0, None))
    assert fill_template("Il s'agit de {}.", "sport") == "Il s'agit de sport."
    for wrong in ("sport", "{} et {}"):
        with pytest.raises(InputError, match=r"exactly one \{\}"):
            fill_template(wrong, "sport")
    with pytest.raises(InputError, match="Did you mean 'entailment_logits'"):
        zero_shot_method("entailment_logit")


def test_best_tokens_leave_special_tokens_out_but_not_their_probability() -> None:
    best = best_tokens(np.log([0.4, 0.3, 0.2, 0.1]), top_k=2, excluded=[0])
    assert [i for i, _ in best] == [1, 2]
    assert [p for _, p in best] == pytest.approx([0.3, 0.2])
    assert len(best_tokens(np.zeros(4), top_k=10, excluded=[0, 0])) == 3
