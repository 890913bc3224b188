"""The batcher: what is computed together, in what order, within what bounds; and that nothing is lost."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from affinage.runtime.server.batcher import Batch, Batcher, Closed, QueueFull, Ticket


class Bench:
    """A batcher whose computing is let go by the test, and all that came of it."""

    def __init__(self, **settings: Any) -> None:
        self.calls: list[tuple[str, list[Any]]] = []
        self.batches: list[Batch] = []
        self.let = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.finished: list[Ticket] = []
        self._one_more = threading.Semaphore(0)
        defaults: dict[str, Any] = {"capacity": 100, "budget": 100, "delay": 0.0}
        self.batcher = Batcher(self.compute, observe=self.batches.append, **{**defaults, **settings})
        self.batcher.start()

    def compute(self, work: str, payloads: list[Any]) -> list[Any]:
        self.calls.append((work, payloads))
        self.entered.release()
        assert self.let.acquire(timeout=20)
        if "bad" in payloads:
            raise ValueError("bad")
        return [f"{work}:{one}" for one in payloads]

    def submit(self, work: str, *payloads: Any, tokens: int = 1) -> Ticket:
        return self.batcher.submit(work, payloads, [tokens] * len(payloads), self._done)

    def _done(self, ticket: Ticket) -> None:
        self.finished.append(ticket)
        self._one_more.release()

    def busy(self) -> Ticket:
        """A text that is being computed, so that the others wait."""
        ticket = self.submit("first", 0)
        assert self.entered.acquire(timeout=20)
        return ticket

    def wait_for(self, tickets: int, *, let: int = 50) -> None:
        for _ in range(let):
            self.let.release()
        for _ in range(tickets):
            assert self._one_more.acquire(timeout=20)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.wait_for(0)
    assert made.batcher.close(20)


def test_requests_that_wait_are_computed_together_and_each_gets_its_own(bench: Bench) -> None:
    first = bench.busy()
    one, other, two = bench.submit("a", 1, 2), bench.submit("b", 3), bench.submit("a", 4)
    bench.wait_for(4)
    assert bench.calls == [("first", [0]), ("a", [1, 2, 4]), ("b", [3])]
    assert (first.results, one.results, other.results, two.results) == (["first:0"], ["a:1", "a:2"], ["b:3"], ["a:4"])
    assert [batch.texts for batch in bench.batches[:2]] == [1, 3]
    assert all(t.arrived <= t.begun <= t.ended for t in (first, one, other, two) if t.begun and t.ended)


def test_a_batch_keeps_to_its_budget_and_one_long_text_goes_alone(bench: Bench) -> None:
    bench.busy()
    bench.submit("a", "huge", tokens=1_000)
    for i in range(3):
        bench.submit("a", i, tokens=40)
    bench.wait_for(5)
    assert [payloads for _, payloads in bench.calls[1:]] == [["huge"], [0, 1], [2]]


def test_a_batch_takes_the_first_and_those_most_like_it_in_length(bench: Bench) -> None:
    bench.busy()
    for tokens in (20, 90, 21, 3, 19, 25, 80):
        bench.submit("a", tokens, tokens=tokens)
    bench.wait_for(8)
    assert [sorted(payloads) for _, payloads in bench.calls[1:]] == [[19, 20, 21, 25], [90], [3], [80]]


def test_the_queue_takes_all_of_a_request_or_nothing() -> None:
    bench = Bench(capacity=3)
    bench.busy()
    bench.submit("a", 1, 2)
    with pytest.raises(QueueFull):
        bench.submit("a", 3, 4)
    assert bench.batcher.waiting == 2
    bench.submit("a", 5)
    bench.wait_for(3)
    assert bench.calls[1] == ("a", [1, 2, 5])
    assert bench.batcher.close(20)


def test_one_bad_text_costs_the_others_nothing_but_time(bench: Bench) -> None:
    bench.busy()
    tickets = [bench.submit("a", one) for one in (1, 2, "bad", 4)]
    both = bench.submit("a", 5, "bad")
    bench.wait_for(6)
    assert [ticket.results for ticket in tickets] == [["a:1"], ["a:2"], [None], ["a:4"]]
    assert [type(ticket.failure) for ticket in (*tickets, both)] == [type(None)] * 2 + [
        ValueError,
        type(None),
        ValueError,
    ]
    assert both.results == ["a:5", None]
    assert bench.batcher.alive


def test_what_nobody_waits_for_is_not_computed(bench: Bench) -> None:
    bench.busy()
    gone, stays = bench.submit("a", 1, 2), bench.submit("a", 3)
    bench.batcher.cancel(gone)
    assert bench.batcher.waiting == 1
    bench.wait_for(2)
    assert bench.calls[1:] == [("a", [3])]
    assert gone not in bench.finished and stays in bench.finished


def test_closing_computes_what_was_taken_and_takes_no_more() -> None:
    bench = Bench()
    bench.busy()
    waiting = [bench.submit(work, i) for i, work in enumerate("abab")]
    closed: list[bool] = []
    closing = threading.Thread(target=lambda: closed.append(bench.batcher.close(20)))
    closing.start()
    while not bench.batcher._closing:
        pass
    with pytest.raises(Closed):
        bench.submit("a", 9)
    bench.wait_for(5)
    closing.join(20)
    assert closed == [True] and not bench.batcher.alive
    assert [ticket.results for ticket in waiting] == [["a:0"], ["b:1"], ["a:2"], ["b:3"]]


def test_a_batch_waits_for_company_only_where_there_is_some() -> None:
    """With an endless delay: one alone is computed at once; after a batch of two, the next one waits for the budget."""
    bench = Bench(delay=1e6, budget=4)
    bench.busy()
    bench.submit("a", 1)
    bench.submit("a", 2, tokens=2)
    bench.let.release()
    assert bench.entered.acquire(timeout=20)
    assert bench.calls[1] == ("a", [1, 2])
    bench.wait_for(3, let=1)
    lonely = bench.submit("a", 3)
    assert not bench.entered.acquire(timeout=0.2)
    bench.submit("a", 4, tokens=2)
    assert bench.entered.acquire(timeout=20)
    assert bench.calls[2] == ("a", [3, 4])
    bench.wait_for(2)
    assert lonely.results == ["a:3"]
    bench.submit("a", 5)
    assert bench.batcher.close(20)  # closing waits for nobody
    assert bench.calls[3] == ("a", [5])
