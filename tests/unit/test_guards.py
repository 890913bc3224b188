"""What the guards call wrong: every rule against figures computed here."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affinage.errors import InputError
from affinage.recipe import Guards
from affinage.training.chance import Knowledge, unigram_loss
from affinage.training.guards import MIN_FALL, Guard, bad_teacher, exploding, no_progress, non_finite

norms = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=50)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_named(value: float) -> None:
    assert f"the loss is {value}" in (non_finite(value, "loss") or "")
    assert non_finite(1e38, "loss") is None


@given(norms, st.floats(1.5, 1e3), st.floats(0.1, 10), st.floats(1e-9, 1e9))
def test_a_gradient_explodes_above_the_median_and_above_what_is_clipped(
    usual: list[float], ratio: float, floor: float, norm: float
) -> None:
    expected = norm > ratio * max(float(np.median(np.float64(usual))), floor)
    assert (exploding(norm, usual, ratio=ratio, floor=floor) is not None) == expected


def test_the_first_gradient_is_never_too_large() -> None:
    assert exploding(1e9, [], ratio=2, floor=1) is None


@pytest.mark.parametrize(
    ("start", "values", "higher", "learnt"),
    [
        (5.0, [4.9], False, True),
        (5.0, [5.0 - 5 * MIN_FALL * 0.9], False, False),
        (5.0, [5.0, 7.0], False, False),
        (5.0, [4.0, 9.0], False, True),
        (-2.0, [-1.9], False, False),
        (-2.0, [-2.1], False, True),
        (0.5, [0.5, 0.4], True, False),
        (0.5, [0.51, 0.4], True, True),
    ],
)
def test_who_is_no_better_than_before_does_not_learn(
    start: float, values: list[float], higher: bool, learnt: bool
) -> None:
    problem = no_progress(start, values, name="held-out loss", higher=higher)
    assert (problem is None) == learnt
    assert learnt or ("risen" if higher else "fallen") in (problem or "")


def test_a_teacher_at_chance_is_bad() -> None:
    assert bad_teacher(Knowledge(4.99, 5.0, 300)) is None
    assert "5.000, and knowing nothing but" in (bad_teacher(Knowledge(5.0, 5.0, 300)) or "")
    assert bad_teacher(Knowledge(math.nan, 5.0, 300)) is not None


def test_the_page_says_what_holds_unless_one_says_otherwise() -> None:
    page = (Path(__file__).parents[2] / "docs" / "recipe.md").read_text(encoding="utf-8")
    words = dict(re.findall(r"^\| `(\w+)` \| `(\w+)`", page, re.MULTILINE))
    numbers = {key: float(value) for key, value in re.findall(r"`(\w+)` \(([\d.]+)\)", page)}
    assert words | numbers == Guards().model_dump()


def test_the_chance_is_that_of_counted_tokens() -> None:
    seen = np.array([0, 0, 1], np.int32)  # (2 + 1) / 6, (1 + 1) / 6, (0 + 1) / 6
    assert unigram_loss(np.array([0, 0, 1]), seen, 3) == pytest.approx(-(2 * math.log(3 / 6) + math.log(2 / 6)) / 3)
    assert unigram_loss(np.array([2, 2]), seen, 3) == pytest.approx(math.log(3))  # a die is better than these counts


@pytest.mark.parametrize(
    ("rule", "found", "noted"),
    [
        ("warn", Knowledge(9.0, 5.0, 300), [("bad_teacher", "warned", 0)]),
        ("warn", Knowledge(4.0, 5.0, 300), []),
        ("warn", None, []),
        ("off", Knowledge(9.0, 5.0, 300), []),
        ("stop", Knowledge(4.0, 5.0, 300), []),
        ("stop", None, []),
    ],
)
def test_a_bad_teacher_is_named_or_let_pass_as_the_recipe_says(
    rule: Any, found: Knowledge | None, noted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = judged(rule, found, monkeypatch)
    assert [(f.guard, f.action, f.first_step) for f in guard.findings] == noted


def test_a_bad_teacher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"9\.000, .* gives 5\.000.*--set guards\.bad_teacher=warn"):
        judged("stop", Knowledge(9.0, 5.0, 300), monkeypatch)


def judged(rule: Any, found: Knowledge | None, monkeypatch: pytest.MonkeyPatch) -> Guard:
    monkeypatch.setattr("affinage.training.guards.knowledge", lambda *_: found)
    guard = Guard(Guards(bad_teacher=rule))
    guard.judge_teacher(*[None] * 3)  # type: ignore[arg-type]
    return guard
