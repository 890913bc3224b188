"""SQuAD 2.0: HasAns and NoAns by hand, the threshold against trying every one, and how it decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affinage.data.task import load_task
from affinage.decoding.spans import SpanWindow, best_answers, no_answer_margin
from affinage.evaluation.evaluator import score_predictions
from affinage.evaluation.metrics import metric
from affinage.evaluation.no_answer import best_threshold

PREDICTED = ["the tower", "", "a river", "Lyon", "in Lyon"]
ACCEPTED = [["tower"], ["bridge"], [], [], ["Lyon"]]


def test_parts_of_squad_2_by_hand() -> None:
    # HasAns: 1, 0 and 2·(1/2·1)/(1/2+1) = 2/3; NoAns: both were answered.
    assert metric("has_answer_f1").score(PREDICTED, ACCEPTED) == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert metric("has_answer_exact_match").score(PREDICTED, ACCEPTED) == pytest.approx(1 / 3)
    assert metric("no_answer_accuracy").score(PREDICTED, ACCEPTED) == 0
    assert metric("no_answer_accuracy").score(["", "", "", "", ""], ACCEPTED) == 1
    assert metric("f1").score(PREDICTED, ACCEPTED) == pytest.approx((1 + 2 / 3) / 5)
    assert metric("no_answer_accuracy").score(PREDICTED[:2], ACCEPTED[:2]) == 0  # no question of that kind


ROWS = st.lists(st.tuples(st.integers(-6, 6), st.sampled_from([0.0, 0.5, 1.0]), st.booleans()), min_size=1, max_size=25)


@given(ROWS)
@settings(deadline=None)
def test_no_threshold_is_better(rows: list[tuple[int, float, bool]]) -> None:
    margins, f1, none = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows]), [r[2] for r in rows]
    answered = np.where(none, 0.0, f1)
    unanswered = np.array(none, float)

    def total(threshold: float) -> float:
        return sum(u if m > threshold else a for m, a, u in zip(margins, answered, unanswered, strict=True))

    every = [total(t) for t in np.arange(-7.5, 7.5, 0.5)]
    assert total(best_threshold(margins, answered, unanswered)) == pytest.approx(max(every))


def test_questions_without_a_span_never_get_one() -> None:
    assert np.isfinite(best_threshold(np.array([np.inf, -1.0]), np.zeros(2), np.array([1.0, 0.0])))
    assert best_threshold(np.array([-3.0, 3.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 0


def test_the_threshold_decides_as_the_margin_says() -> None:
    # <cls> 2 + 1; best span token 2 to 3: 1.5 + 1.0. Margin 0.5.
    offsets = np.array([[0, 0], [0, 2], [3, 7], [8, 11], [0, 0]])
    window = SpanWindow(
        np.array([2.0, 0.0, 1.5, 0.0, 0.0]),
        np.array([1.0, 0.0, 0.0, 1.0, 0.0]),
        offsets,
        np.array([False, True, True, True, False]),
    )
    assert no_answer_margin([window]) == pytest.approx(0.5)
    for threshold, answer in ((0.0, ""), (0.4, ""), (0.6, "quay was")):
        best = best_answers([window], "On quay was it", allow_no_answer=True, no_answer_threshold=threshold)
        assert best[0]["answer"] == answer
    assert best_answers([window], "On quay was it")[0]["answer"] == "quay was"


def test_metrics_of_some_questions_count_those_alone() -> None:
    task = load_task("squad2")
    scores, _ = score_predictions(task, PREDICTED, [tuple(answers) for answers in ACCEPTED], name="m")
    found = {score.metric: score for score in scores}
    answered = sum(map(bool, ACCEPTED))
    assert found["has_answer_f1"].n == answered and found["no_answer_accuracy"].n == len(ACCEPTED) - answered
    right, _ = score_predictions(task, ["x", "", ""], [("x",), (), ()], name="m")
    one = next(score for score in right if score.metric == "has_answer_f1")
    assert (one.value, one.low, one.high, one.n) == (1.0, 1.0, 1.0, 1)
    every, kept = score_predictions(task, ["x", "y"], [("x",), ("y",)], name="m")
    assert "no_answer_accuracy" not in {score.metric for score in every} | set(kept.rows)


def test_an_answer_of_nothing_but_an_article_does_not_count_beside_others() -> None:
    """As in SQuAD 2.0's script."""
    assert metric("exact_match").score([""], [("The", "the film")]) == 0
    assert metric("exact_match").score(["film"], [("The", "the film")]) == 1
    assert metric("exact_match").score(["the"], [("The",)]) == 1
