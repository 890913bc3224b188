"""Batches that a thread makes ahead: the same ones in the same order, its faults where they are due, and it ends."""

import threading
import time
from collections.abc import Iterator

import pytest

from affinage.training.ahead import Ahead


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batches ahead"]


@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_the_same_items_in_the_same_order_and_no_more(count: int) -> None:
    items = Ahead(iter(range(count)), depth=2)
    assert list(items) == list(range(count))
    assert list(items) == [] and threads() == []


def test_items_are_made_before_they_are_asked_for() -> None:
    made = threading.Event()

    def work() -> Iterator[int]:
        yield 1
        made.set()
        yield 2

    items = Ahead(work())
    assert next(items) == 1 and made.wait(10)
    assert next(items) == 2


def test_a_fault_comes_after_the_items_before_it() -> None:
    def work() -> Iterator[int]:
        yield 1
        raise OSError("the shard is gone")

    items = Ahead(work())
    assert next(items) == 1
    with pytest.raises(OSError, match="the shard is gone"):
        next(items)
    assert list(items) == [] and threads() == []


def test_who_stops_early_leaves_no_thread_and_no_more_is_taken() -> None:
    taken: list[int] = []

    def work() -> Iterator[int]:
        for i in range(1_000_000):
            taken.append(i)
            yield i

    items = Ahead(work(), depth=2)
    assert next(items) == 0
    items.close()
    assert threads() == [] and len(taken) < 10
    items.close()
    with pytest.raises(StopIteration):
        next(items)


def test_no_more_lie_ready_than_asked_for() -> None:
    taken: list[int] = []
    items = Ahead((taken.append(i) or i for i in range(100)), depth=3)
    while len(taken) < 4:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(taken) == 4  # three ready, and one in hand
    assert list(items) == list(range(100))
