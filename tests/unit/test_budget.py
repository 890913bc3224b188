"""The budget of a compression: what it takes, what it refuses, and how far a model is from it."""

import math

import pytest

from affinage.compression.budget import Budget, more_is_lost
from affinage.errors import InputError


def test_terms_are_shares_of_the_uncompressed_model_or_figures() -> None:
    budget = Budget.parse("latency <= 0.5x, size<=20MB,memory≤300 mib, drop<=1pt")
    assert str(budget) == "latency<=0.5x, size<=20MB, memory≤300mib, drop<=1pt"
    assert [(limit.name, limit.relative) for limit in budget.limits] == [
        ("latency", True), ("size", False), ("memory", False), ("drop", False)
    ]  # fmt: skip
    found = {"latency": 4.0, "size": 10e6, "memory": 150 * 2**20, "drop": 0.9}
    whole = {"latency": 16.0, "size": 80e6, "memory": 1e9, "drop": 0.902}
    shares = budget.shares(found, whole)
    assert shares == pytest.approx({"latency": 0.5, "size": 0.5, "memory": 0.5, "drop": 0.2})
    assert budget.drop is not None and [limit.name for limit in budget.costs] == ["latency", "size", "memory"]


@pytest.mark.parametrize(
    ("text", "score", "share"),
    [("drop<=2%", 0.49, 1.0), ("drop<=1pt", 0.49, 1.0), ("drop<=0pt", 0.5, 0.0), ("drop<=0pt", 0.49, math.inf),
     ("drop<=1pt", 0.6, 0.0)],
)  # fmt: skip
def test_what_is_lost_is_points_or_a_share_of_the_score(text: str, score: float, share: float) -> None:
    budget = Budget.parse(f"{text}, size<=0.5x")
    assert budget.shares({"drop": score}, {"drop": 0.5}) == pytest.approx({"drop": share})


@pytest.mark.parametrize("text", ["latency<=12.5ms", "latency<=0.0125s", "latency<=12.5 MS"])
def test_a_latency_may_be_said_in_ms_or_seconds(text: str) -> None:
    assert Budget.parse(text).limits[0].most == pytest.approx(12.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no budget at all"),
        ("latency<=0.5x,", "one comma too many"),
        ("latency", "expected QUANTITY<=NUMBER"),
        ("latancy<=0.5x", "Did you mean 'latency'"),
        ("latency<0.5x", "not with <"),
        ("latency>=0.5x", "not with >="),
        ("latency=0.5x", "not with ="),
        ("latency<=0.5", "no unit; expected x"),
        ("latency<=20MB", "the unit 'MB'; expected x"),
        ("size<=20ms", "the unit 'ms'; expected x"),
        ("size<=0.5y", "the unit 'y'"),
        ("size<=1x", "asks for nothing"),
        ("size<=0x", "above 0"),
        ("size<=-1MB", "above 0"),
        ("size<=nanMB", "expected QUANTITY<=NUMBER"),
        ("size<=0,5x", "decimals have a point"),
        ("size<=0.5.1x", "is no number"),
        ("size<=0.5x, size<=20MB", "limited twice"),
        ("drop<=1pt", "nothing that is to become smaller"),
        ("size<=0.5x, drop<=1", "no unit; expected pt"),
        ("size<=0.5x, drop<=0.01x", "the unit 'x'; expected pt"),
        ("size<=0.5x, drop<=101pt", "more than 100"),
        ("size<=0.5x; drop<=1pt", "expected QUANTITY<=NUMBER"),
        ("size<=1e400MB", "expected"),
    ],
)
def test_what_is_no_budget_is_said(text: str, message: str) -> None:
    with pytest.raises(InputError, match="budget '") as caught:
        Budget.parse(text)
    assert message in str(caught.value)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(InputError) as caught:
        Budget.parse("latency<0.5x, sise<=1MB, drop<=3")
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize("rows", [100, 200, 500, 1000])
def test_losing_exactly_what_is_allowed_is_within_it(rows: int) -> None:
    """Though the difference of two shares of so many rows is seldom 0.01 to the last bit."""
    budget = Budget.parse("size<=0.5x, drop<=1pt")
    for right in range(rows // 2, rows + 1):
        before, after = right / rows, (right - rows // 100) / rows
        assert budget.shares({"drop": after}, {"drop": before})["drop"] <= 1
        assert not more_is_lost(before - after, 0.01)
        assert more_is_lost(before - after + 1 / rows, 0.01)
        assert budget.shares({"drop": after - 1 / rows}, {"drop": before})["drop"] > 1
