"""Batches made while the one before trains: on an accelerator the processor would else keep it waiting."""

import threading
from collections.abc import Iterator
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

T = TypeVar("T")

DEPTH = 4
"""Batches that lie ready at most."""
_SECONDS = 0.1
"""Between two looks at whether anybody still waits."""


class Ahead(Generic[T]):
    """The same items in the same order, taken from `items` by a thread. What it raises is raised where it is due."""

    def __init__(self, items: Iterator[T], depth: int = DEPTH) -> None:
        self._items = items
        self._ready: Queue[tuple[T | None, BaseException | None]] = Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="batches ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._closed.is_set():
            raise StopIteration
        item, fault = self._ready.get()
        if fault is not None:
            self.close()
            raise fault
        return item  # type: ignore[return-value]

    def close(self) -> None:
        """Stop the thread, also in the middle; nothing more comes."""
        self._closed.set()
        while self._thread.is_alive() and self._thread is not threading.current_thread():
            try:
                self._ready.get(timeout=_SECONDS)  # it may be waiting for room
            except Empty:
                continue

    def _work(self) -> None:
        try:
            for item in self._items:
                if not self._put(item, None):
                    return
        except BaseException as fault:  # whatever it is, it belongs to who trains
            self._put(None, fault)
        else:
            self._put(None, StopIteration())

    def _put(self, item: T | None, fault: BaseException | None) -> bool:
        """Whether anybody still waits for it."""
        while not self._closed.is_set():
            try:
                self._ready.put((item, fault), timeout=_SECONDS)
            except Full:
                continue
            return True
        return False
