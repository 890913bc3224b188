"""The search of a plan within a budget: what it looks at, what it tries, and that whoever goes on repeats nothing."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from affinage.compression import studies
from affinage.compression.base import NEEDS
from affinage.compression.budget import Budget
from affinage.compression.estimates import Glance
from affinage.compression.plan import Plan
from affinage.compression.search import Effort, Found, Means, Search, best_within
from affinage.compression.space import INT4, NONE, plan_of, slots_for, starts
from affinage.errors import InputError
from affinage.report.frontier import Variant

SLOTS = slots_for(layers=12, given=NEEDS, texts=True)
BASE = Plan.of({"steps": ["int8"], "recover": 30})
WEIGHT = {"trim": 0.7, "drop": 0.5, "prune": 0.7, "svd": 0.6, "int8": 0.3, "int4": 0.2, "pq": 0.5, "k-means": 0.15,
          "activation": 0.7}  # fmt: skip
"""made-up share of the bytes that a method leaves"""
WHOLE = {"size": 100e6, "latency": 10.0, "memory": 300e6}


class Made:
    """Means with made-up figures, which count how often they are asked."""

    def __init__(self, *, dies_at: int | None = None) -> None:
        self.looked: list[str] = []
        self.tried: list[str] = []
        self.dies_at = dies_at

    @property
    def means(self) -> Means:
        return Means(self.glance, self.full)

    def share(self, plan: Plan) -> float:
        found = 1.0
        for step in plan.steps:
            found *= WEIGHT[next(key for key in WEIGHT if step.method.startswith(key))]
        return found

    def glance(self, plan: Plan) -> Glance:
        if any(step.method == "prune-width" for step in plan.steps):
            raise InputError("made up: not this one")
        self._count(self.looked, plan)
        share = self.share(plan)
        return Glance(int(share * 100e6), int(share * 25e6), share, 1 - share, int(200e6 + share * 100e6))

    def full(self, plan: Plan) -> Variant:
        self._count(self.tried, plan)
        share = self.share(plan)
        return Variant(name=plan.title, plan=plan.title, task="t", metric="m", score=0.9 - 0.1 * (1 - share), n=100,
                       parameters=1, size_bytes=int(share * 100e6), within=share <= 0.5)  # fmt: skip

    def _count(self, calls: list[str], plan: Plan) -> None:
        if self.dies_at is not None and len(self.looked) + len(self.tried) == self.dies_at:
            raise KeyboardInterrupt
        calls.append(plan.sha256)


Searching = Callable[..., Found]


@pytest.fixture
def searching(tmp_path: Path) -> Searching:
    def run(made: Made, *, budget: str = "size<=0.5x", name: str = "s", alone: bool = True, tries: int = 10) -> Found:
        where, limits = f"sqlite:///{tmp_path / 'db'}", Budget.parse(budget)
        search = Search(where, name, budget=limits, slots=SLOTS, base=BASE, means=made.means, alone=alone)
        return search.run(Effort(tries=tries, finalists=4), uncompressed=WHOLE, seed=3)

    return run


def test_finalists_are_those_of_least_loss_within_the_budget_and_some_that_cost_less(searching: Searching) -> None:
    made = Made()
    found = searching(made)
    assert found.looked_at == len(set(made.looked)) == len(made.looked) == 10
    assert len(made.tried) == len(found.tried) == 4
    shares = [made.share(plan) for plan, _ in found.tried]
    assert shares[:3] == sorted(shares[:3], reverse=True) and shares[0] <= 0.5 * 1.15
    assert min(shares) == min(made.share(Plan.of(p.model_dump())) for p, _ in found.tried) < 0.2
    best = best_within(found.tried)
    assert best is not None and best[1].score == max(v.score for _, v in found.tried if v.within)
    assert all(plan.recover == 0 and sum(bool(s.recover) for s in plan.steps) <= 1 for plan, _ in found.tried)


@pytest.mark.parametrize("dies_at", [4, 12])
def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(searching: Searching, dies_at: int) -> None:
    whole = searching(Made(), name="whole")
    first, second = Made(dies_at=dies_at), Made()
    with pytest.raises(KeyboardInterrupt):
        searching(first)
    again = searching(second)
    assert again == whole
    assert not set(first.looked) & set(second.looked) and not set(first.tried) & set(second.tried)


def test_another_budget_uses_what_was_tried(searching: Searching) -> None:
    first, second = Made(), Made()
    searching(first)
    found = searching(second, budget="size<=0.3x")
    assert len(second.looked) <= 3 and len(second.tried) < 4
    assert {plan.sha256 for plan, _ in found.tried} == {*first.tried, *second.tried}


WAIT = 120
"""seconds for another process, on a machine that has other things to do"""


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Processes forked from one that has imported everything: milliseconds instead of seconds each."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where they find this file under the name it has here
    found = get_context("forkserver")
    found.set_forkserver_preload(["affinage.compression", "affinage.compression.search", "optuna"])
    return found


class Meeting(Made):
    """Waits, at its first look and its first try, until another worker is at one too."""

    def __init__(self, barrier: Any) -> None:
        super().__init__()
        self.barrier = barrier

    def _count(self, calls: list[str], plan: Plan) -> None:
        super()._count(calls, plan)
        if len(calls) == 1:
            self.barrier.wait(WAIT)


EFFORT = Effort(tries=6, finalists=3)


def search_at(where: str, made: Made) -> Search:
    """One worker of several."""
    studies._WAIT = 0.5
    limits = Budget.parse("size<=0.5x")
    return Search(where, "s", budget=limits, slots=SLOTS, base=BASE, means=made.means, alone=False)


def work(where: str, barrier: Any, told: Any) -> None:
    """What a worker's process does."""
    made = Meeting(barrier)
    found = search_at(where, made).run(EFFORT, uncompressed=WHOLE, seed=3)
    told.put((found.looked_at, {plan.sha256: one.score for plan, one in found.tried}, made.looked, made.tried))


def die(where: str, dies_at: int) -> None:
    """What one does that is killed at its look, or try, of this number."""
    studies._BEAT, studies._STALE = 1, 2

    class Killed(Made):
        def _count(self, calls: list[str], plan: Plan) -> None:
            if len(self.looked) + len(self.tried) == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            super()._count(calls, plan)

    search_at(where, Killed()).run(EFFORT, uncompressed=WHOLE, seed=3)


def test_two_workers_at_once_do_the_work_of_one(tmp_path: Path, context: Any) -> None:
    where = f"sqlite:///{tmp_path / 'db'}"
    barrier, told = context.Barrier(2), context.Queue()
    workers = [context.Process(target=work, args=(where, barrier, told)) for _ in range(2)]
    for worker in workers:
        worker.start()
    (looked_at, found, looked, tried), (also, theirs, they_looked, they_tried) = (
        told.get(timeout=WAIT) for _ in workers
    )
    for worker in workers:
        worker.join(WAIT)
        assert worker.exitcode == 0
    assert found == theirs and looked_at == also >= EFFORT.tries
    # Nobody is left out, and no plan is tried twice; of those looked at in the same moment a few may be the same.
    assert sorted([*tried, *they_tried]) == sorted(found) and tried and they_tried
    assert looked and they_looked and len(looked) + len(they_looked) <= looked_at + 3


def test_what_a_dead_worker_was_at_holds_nobody_up_and_is_done_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """One is killed at its third look, another later at its first try; a third ends the search."""
    monkeypatch.setattr(studies, "_BEAT", 1)
    monkeypatch.setattr(studies, "_STALE", 2)
    monkeypatch.setattr(studies, "_WAIT", studies._WAIT)
    where = f"sqlite:///{tmp_path / 'db'}"
    for dies_at in (2, 4):
        worker = context.Process(target=die, args=(where, dies_at))
        worker.start()
        worker.join(WAIT)
        assert worker.exitcode == -signal.SIGKILL
    made = Made()
    found = search_at(where, made).run(EFFORT, uncompressed=WHOLE, seed=3)
    assert len(found.tried) == len(made.tried) == EFFORT.finalists
    assert found.looked_at >= EFFORT.tries and len(made.looked) <= 1


def test_workers_share_one_search(searching: Searching) -> None:
    first, second = Made(dies_at=None), Made()
    one = searching(first, alone=False)
    two = searching(second, alone=False)
    assert one == two and not second.looked and not second.tried


@pytest.mark.parametrize(
    ("budget", "nearest"),
    [
        ("size<=0.001x", r"[\d.]+ MB \(0\.0\d+x\)"),
        ("latency<=0.001x, drop<=1pt", r"an estimated latency of 0\.\d+ ms \(0\.0\dx\)"),
        ("latency<=0.05ms", r"an estimated latency of 0\.\d+ ms \(0\.0\dx\)"),
        ("memory<=0.5x", r"20\d MB in memory \(0\.6\dx\)"),
        ("memory<=150MB, size<=0.9x", r"20\d MB in memory \(0\.6\dx\), [\d.]+ MB \(0\.0\d+x\)"),
    ],
)
def test_a_budget_that_no_plan_reaches_is_refused_before_anything_is_trained(
    searching: Searching, budget: str, nearest: str
) -> None:
    made = Made()
    with pytest.raises(InputError, match=rf"cannot be reached: the nearest of 10 plans, .* has {nearest}; nothing was"):
        searching(made, budget=budget)
    assert not made.tried


@pytest.mark.parametrize("budget", ["latency<=0.009x", "memory<=0.64x"])
def test_what_an_estimate_leaves_open_is_tried(searching: Searching, budget: str) -> None:
    """Above these limits are all, by less than estimates may be wrong."""
    made = Made()
    found = searching(made, budget=budget)
    least = min(made.share(plan) for plan, _ in found.tried)
    assert 0.009 < least < 3 * 0.009 and 0.64 < (200 + 100 * least) / 300 < 1.15 * 0.64


def test_memory_is_measured_again_where_an_earlier_budget_did_not_limit_it(searching: Searching) -> None:
    class Forgetful(Made):
        def glance(self, plan: Plan) -> Glance:
            return replace(super().glance(plan), memory_bytes=None)

    searching(Forgetful())
    second = Made()
    searching(second, budget="memory<=0.9x")
    assert len(second.looked) == 10


def test_a_latency_is_estimated_by_the_work(searching: Searching) -> None:
    found = searching(Made(), budget="latency<=5ms, drop<=1pt")
    assert all(Made().share(plan) <= 0.5 * 1.15 for plan, _ in found.tried)


def test_a_database_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    for url in ("nonsense", f"sqlite:///{tmp_path / 'no' / 'such' / 'folder' / 'db'}", "postgresql://h/db"):
        with pytest.raises(InputError, match="the database of the search cannot be used"):
            Search(url, "s", budget=Budget.parse("size<=0.5x"), slots=SLOTS, base=BASE, means=Made().means, alone=True)


def test_the_choices_follow_the_model_and_what_is_given() -> None:
    assert SLOTS["layers"] == (NONE, "drop-layers:keep=9", "drop-layers:keep=6", "drop-layers:keep=4")
    few = slots_for(layers=2, given=set(), texts=False)
    assert few["layers"] == (NONE, "drop-layers:keep=1") and "vocabulary" not in few
    assert few["cuts"] == (NONE,) and "int8-static" not in few["numbers"]
    sparse = slots_for(layers=12, given=NEEDS, texts=True, forms={"sparse"})
    assert sparse["cuts"] == (NONE,) and sparse["numbers"] == (NONE, "int8", "int8-static", INT4)
    for choices in starts(SLOTS):
        assert set(choices) == set(SLOTS)
    assert {**dict.fromkeys(SLOTS, NONE), "numbers": INT4} in starts(SLOTS)
    assert all(set(choices) == set(sparse) for choices in starts(sparse))  # slots with nothing left included


def test_every_choice_alone_is_a_plan() -> None:
    for slot, choices in SLOTS.items():
        for choice in choices[1:]:
            plan = plan_of({**dict.fromkeys(SLOTS, NONE), slot: choice}, SLOTS, BASE)
            assert plan is not None and len(plan.checked()) == 1
    assert plan_of(dict.fromkeys(SLOTS, NONE), SLOTS, BASE) is None


def test_what_came_before_codes_is_trained_before_them() -> None:
    choices = {**dict.fromkeys(SLOTS, NONE), "layers": "drop-layers:keep=6", "table": "pq-embeddings"}
    plan = plan_of(
        {**choices, "numbers": "k-means:bits=3,activations=dynamic"}, SLOTS, BASE.model_copy(update={"recover": 7})
    )
    assert plan is not None and [step.recover for step in plan.steps] == [0, 7, 0]
    alone = plan_of(
        {**dict.fromkeys(SLOTS, NONE), "numbers": "k-means:bits=3,activations=dynamic"},
        SLOTS,
        BASE.model_copy(update={"recover": 7}),
    )
    assert alone is not None and [step.recover for step in alone.steps] == [7]
