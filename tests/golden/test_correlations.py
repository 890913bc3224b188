"""Matthews, Pearson, Spearman, F1 of one class, means and multi-label scores against scikit-learn and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from affinage.errors import InputError
from affinage.evaluation.metrics import metric

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:sklearn", "ignore::RuntimeWarning:scipy")

CLASSES = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=30)
NUMBER = st.integers(-4, 4) | st.floats(-1e6, 1e6, allow_nan=False, width=32)
NUMBERS = st.lists(st.tuples(NUMBER, NUMBER), min_size=2, max_size=40)
LABELS = "abc"
SETS = st.lists(st.tuples(st.sets(st.sampled_from(LABELS)), st.sets(st.sampled_from(LABELS))), min_size=1, max_size=20)


@given(CLASSES)
@settings(deadline=None)
def test_matthews_is_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    predictions, references = [p for p, _ in pairs], [r for _, r in pairs]
    expected = matthews_corrcoef(references, predictions)
    assert metric("matthews").score(predictions, references) == pytest.approx(expected, abs=1e-12)


def test_matthews_by_hand() -> None:
    # TP 3, TN 2, FP 1, FN 2: (3·2 − 1·2) / sqrt(4·5·3·4)
    predictions, references = list("11110000"), list("11101100")
    assert metric("matthews").score(predictions, references) == pytest.approx(4 / np.sqrt(240))
    assert metric("matthews").score(list("0101"), list("1010")) == -1
    assert metric("matthews").score(list("1111"), list("1010")) == 0


@given(CLASSES)
@settings(deadline=None)
def test_f1_of_a_class_and_means(pairs: list[tuple[str, str]]) -> None:
    predictions, references = [p for p, _ in pairs], [r for _, r in pairs]
    ours, theirs = [p == "a" for p in predictions], [r == "a" for r in references]
    f1 = f1_score(theirs, ours, zero_division=0.0)
    accuracy = accuracy_score(references, predictions)
    assert metric("f1:a").score(predictions, references) == pytest.approx(f1)
    assert metric("mean(accuracy, f1:a)").score(predictions, references) == pytest.approx((accuracy + f1) / 2)


@given(NUMBERS)
@settings(deadline=None)
def test_correlations_of_numbers_are_scipys(pairs: list[tuple[float, float]]) -> None:
    predictions, references = [float(p) for p, _ in pairs], [float(r) for _, r in pairs]
    constant = len(set(predictions)) == 1 or len(set(references)) == 1
    expected = [0, 0] if constant else [c(predictions, references)[0] for c in (pearsonr, spearmanr)]
    found = [metric(name).score(predictions, references) for name in ("pearson", "spearman")]
    assert found == pytest.approx(expected, abs=1e-6)
    assert metric("mean(pearson, spearman)").score(predictions, references) == pytest.approx(np.mean(found))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_resampled_correlations_vary_as_those_of_resampled_examples(name: str, ties: bool) -> None:
    """Spearman is so to first order. Ranks held fast would vary 6 to 8 % too little here, and fail."""
    random = np.random.default_rng(7)
    x = random.normal(size=400)
    y = x + 0.4 * random.normal(size=400)
    if ties:
        y = np.round(np.clip(y + 2, 0, 5))
    chosen = random.integers(400, size=(1500, 400))
    a, b = (rankdata(z[chosen], axis=1) if name == "spearman" else z[chosen] for z in (x, y))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    expected = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    weights = np.stack([np.bincount(row, minlength=400) for row in chosen]).astype(float)
    found = metric(name).aggregate(weights @ metric(name).rows(x.tolist(), y.tolist()))
    assert found.std() == pytest.approx(expected.std(), rel=0.03)
    # A resample holds examples twice, which then tie: rho is a little lower there.
    assert found.mean() == pytest.approx(expected.mean(), abs=0.5 * expected.std())


@given(SETS)
@settings(deadline=None)
def test_multi_label_scores_are_scikit_learns(pairs: list[tuple[set[str], set[str]]]) -> None:
    predictions, references = [tuple(sorted(p)) for p, _ in pairs], [tuple(sorted(r)) for _, r in pairs]

    def table(rows: list[tuple[str, ...]]) -> np.ndarray:
        return np.array([[label in row for label in LABELS] for row in rows], int)

    ours, theirs = table(predictions), table(references)
    micro = f1_score(theirs, ours, average="micro", zero_division=0.0)
    assert metric("micro_f1").score(predictions, references) == pytest.approx(micro)
    assert metric("subset_accuracy").score(predictions, references) == pytest.approx(accuracy_score(theirs, ours))
    occur = (ours | theirs).any(axis=0)  # ours leaves classes out that are nowhere
    each = f1_score(theirs, ours, average=None, zero_division=0.0)[occur]
    assert metric("macro_f1").score(predictions, references) == pytest.approx(each.mean() if occur.any() else 0.0)


def test_means_of_what_cannot_be_averaged_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown metric 'acuracy'\. Did you mean 'accuracy'"):
        metric("mean(acuracy, f1:a)")
    with pytest.raises(InputError, match="the mean takes two or more"):
        metric("mean(accuracy, matthews)")
    with pytest.raises(InputError, match="the mean takes two or more"):
        metric("mean(accuracy)")
