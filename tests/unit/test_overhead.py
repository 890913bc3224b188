"""The share of training that is not arithmetic, on a clock that is set by hand."""

from typing import Any

import pytest

from affinage.report.report import TrainingRun
from affinage.training import overhead as module
from affinage.training.overhead import Overhead
from affinage.workflows.joined_training import joined


class Hands:
    """Moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    made = Hands()
    monkeypatch.setattr(module, "time", made)
    return made


def steps(found: Overhead, hands: Hands, plan: list[tuple[float, float, str]]) -> None:
    """For each step: seconds before it, seconds in it, and what happens after it."""
    given: Any = (None, None, None)
    for before, within, then in plan:
        hands.now += before
        found.on_step_begin(*given)
        hands.now += within
        found.on_step_end(*given)
        if then:
            hands.now += 50
            getattr(found, then)(*given)


def test_gaps_are_shared_out_between_steps(hands: Hands) -> None:
    found = Overhead()
    assert found.share is None
    steps(found, hands, [(7, 3, "")])  # the first one has loaded and warmed up
    assert found.share is None
    steps(found, hands, [(1, 9, ""), (2, 8, "")])
    assert found.share == pytest.approx(3 / 20)


@pytest.mark.parametrize("then", ["on_evaluate", "on_save"])
def test_what_is_evaluated_or_saved_is_no_overhead(hands: Hands, then: str) -> None:
    found = Overhead()
    steps(found, hands, [(7, 3, ""), (1, 9, then), (4, 6, ""), (2, 18, "")])
    assert found.share == pytest.approx(3 / 30)


def test_of_several_stages_it_is_the_mean_by_their_time() -> None:
    def run(seconds: float, share: float | None) -> TrainingRun:
        return TrainingRun(steps=1, tokens=1, seconds=seconds, overhead_share=share)

    assert joined([("a", run(30, 0.01)), ("b", run(10, 0.05))]).overhead_share == pytest.approx(0.02)
    assert joined([("a", run(30, 0.01)), ("b", run(10, None))]).overhead_share is None
    assert joined([("a", run(30, 0.01))]).overhead_share == 0.01
