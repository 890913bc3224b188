"""Bootstrap and McNemar against closed forms and scipy."""

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import betainc
from scipy.stats import binomtest

from affinage.errors import InputError
from affinage.evaluation.intervals import resampled_scores
from affinage.evaluation.metrics import metric
from affinage.evaluation.significance import Estimate, estimates, mcnemar

Rows = NDArray[np.float64]
ACCURACY = metric("accuracy")


def marks(right: Rows | list[float]) -> Rows:
    """Statistics of accuracy: (right, 1) of every example."""
    values = np.asarray(right, np.float64)
    return np.stack([values, np.ones(len(values))], axis=1)


def constant(value: float, n: int = 50) -> Rows:
    """A seed that scores the same on every example: other examples change nothing."""
    return marks(np.full(n, value))


@pytest.mark.parametrize(("both", "first", "second"), [*product([0, 7], [0, 1, 5, 30], [0, 1, 9]), (100, 700, 800)])
def test_mcnemar_is_the_exact_binomial_test(both: int, first: int, second: int) -> None:
    ours = [True] * (both + first) + [False] * second + [False] * 3
    theirs = [True] * both + [False] * first + [True] * second + [False] * 3
    p = mcnemar(ours, theirs)
    if first + second == 0:
        assert p == 1
        return
    assert p == pytest.approx(binomtest(first, first + second, 0.5).pvalue, rel=1e-9)
    fewer, total = min(first, second), first + second
    assert p == pytest.approx(min(1, 2 * betainc(total - fewer, fewer + 1, 0.5)), rel=1e-9)
    assert p == mcnemar(theirs, ours)


def test_with_one_seed_draws_are_those_of_the_bootstrap_over_examples() -> None:
    rows = marks((np.random.default_rng(0).random(300) < 0.7).astype(float))
    (found,) = estimates(ACCURACY, [[rows]], samples=200, seed=4)
    assert np.array_equal(found.draws, resampled_scores(ACCURACY, rows, samples=200, seed=4))
    assert found.value == rows[:, 0].mean()


def test_one_seed_varies_as_a_share_of_examples_does() -> None:
    right = np.repeat([1.0, 0.0], [320, 80])
    (found,) = estimates(ACCURACY, [[marks(right)]])
    assert found.draws.std() == pytest.approx(np.sqrt(0.8 * 0.2 / 400), rel=0.04)
    low, high = found.interval
    assert (low, high) == pytest.approx((0.8 - 1.96 * 0.02, 0.8 + 1.96 * 0.02), abs=0.003)


@pytest.mark.parametrize("scores", [(0.5, 0.6), (0.70, 0.72, 0.77), (0.1, 0.2, 0.25, 0.3, 0.6)])
def test_seeds_vary_as_the_mean_of_a_sample_does(scores: tuple[float, ...]) -> None:
    """Standard error of a mean, s / sqrt(S) with the unbiased s: nothing is added by examples that are all alike."""
    (found,) = estimates(ACCURACY, [[constant(score) for score in scores]], samples=20_000)
    assert found.value == pytest.approx(np.mean(scores))
    assert found.draws.mean() == pytest.approx(np.mean(scores), abs=0.003)
    assert found.draws.std() == pytest.approx(np.std(scores, ddof=1) / np.sqrt(len(scores)), rel=0.03)


def test_seeds_and_examples_add_up() -> None:
    """Seeds that are wrong on the same examples, one on a few more: variances of the two sources are added."""
    n, shared = 1000, np.repeat([1.0, 0.0], [800, 200])
    other = shared.copy()
    other[:30] = 0
    (found,) = estimates(ACCURACY, [[marks(shared), marks(other)]], samples=20_000)
    mean = (shared + other) / 2
    over_examples, over_seeds = mean.var() / n, np.var([0.8, 0.77], ddof=1) / 2
    both = (shared - other).var() / n / 4  # the seeds' difference is another one on other examples
    assert found.draws.var() == pytest.approx(over_examples + over_seeds + both, rel=0.04)


def test_the_difference_of_two_systems_is_paired() -> None:
    """Var = (b + c - (b - c)^2 / n) / n^2 with b and c examples that only one gets right."""
    b, c, n = 40, 25, 500
    first = np.repeat([1, 0, 1, 0], [b, c, 300, n - b - c - 300]).astype(float)
    second = np.repeat([0, 1, 1, 0], [b, c, 300, n - b - c - 300]).astype(float)
    ours, theirs = estimates(ACCURACY, [[marks(first)], [marks(second)]])
    difference = ours - theirs
    assert difference.value == pytest.approx((b - c) / n)
    assert difference.draws.std() == pytest.approx(np.sqrt((b + c - (b - c) ** 2 / n) / n**2), rel=0.04)
    unpaired = np.sqrt(ours.draws.var() + theirs.draws.var())
    assert difference.draws.std() < 0.7 * unpaired


def test_seeds_of_two_systems_are_drawn_apart() -> None:
    scores = (0.70, 0.72, 0.77)
    system = [constant(score) for score in scores]
    one, other = estimates(ACCURACY, [system, system], samples=20_000)
    expected = np.sqrt(2 / 3) * np.std(scores, ddof=1)
    assert (one - other).draws.std() == pytest.approx(expected, rel=0.03)


def test_equal_systems_are_not_told_apart_and_unequal_ones_are() -> None:
    right = np.random.default_rng(1).random(400) < 0.6
    same, again, better = estimates(
        ACCURACY, [[marks(right)], [marks(right)], [marks(np.maximum(right, np.arange(400) < 60))]]
    )
    assert (same - again).interval == (0, 0)
    assert (same - again).p_value == 1
    assert (better - same).interval[0] > 0
    assert (better - same).p_value < 0.001
    assert (same - better).p_value == (better - same).p_value


def test_the_p_value_and_the_interval_agree_and_reject_as_often_as_they_say() -> None:
    random, rejected = np.random.default_rng(2), 0
    for trial in range(300):
        first, second = (random.random((2, 200)) < 0.7).astype(float)
        ours, theirs = estimates(ACCURACY, [[marks(first)], [marks(second)]], samples=500, seed=trial)
        low, high = (ours - theirs).interval
        apart = not low <= 0 <= high
        rejected += apart
        p = (ours - theirs).p_value
        assert apart == (p < 0.05) or 0.03 < p < 0.08
    assert 5 <= rejected <= 29  # 15 of 300 expected; outside with probability 0.001


def test_ratios() -> None:
    """Delta method: the relative variance of a ratio of independent means."""
    random = np.random.default_rng(3)
    top, bottom = random.normal(0.6, 0.01, 5000), random.normal(0.8, 0.02, 5000)
    ratio = Estimate(0.6, top).over(Estimate(0.8, bottom))
    assert ratio is not None
    assert ratio.value == pytest.approx(0.75)
    assert ratio.draws.std() == pytest.approx(0.75 * np.sqrt((0.01 / 0.6) ** 2 + (0.02 / 0.8) ** 2), rel=0.04)
    assert Estimate(0.6, top).over(Estimate(0.0, bottom)) is None
    beyond = Estimate(0.5, np.array([1.0, -1.0, 2.0])).over(Estimate(1.0, np.array([0.0, -1.0, 4.0])))
    assert beyond is not None
    assert beyond.draws.tolist() == [np.inf, -np.inf, 0.5]


def test_seeds_may_have_predicted_other_classes() -> None:
    """macro F1 has three columns for each class that occurs; one that only one seed predicts is no obstacle."""
    macro = metric("macro_f1")
    references = list("aabbaabb")
    rows = [macro.rows(list("aabbaabb"), references), macro.rows(list("aacbaabb"), references)]
    (found,) = estimates(macro, [rows], samples=50)
    expected = np.mean([1.0, macro.score(list("aacbaabb"), references)])
    assert found.value == pytest.approx(expected)


@pytest.mark.parametrize("systems", [[], [[]], [[constant(0.5, 3)], []], [[constant(0.5, 3)], [constant(0.5, 4)]]])
def test_what_cannot_be_paired_is_refused(systems: list[list[Rows]]) -> None:
    with pytest.raises(InputError, match="compared on the same examples"):
        estimates(ACCURACY, systems)
