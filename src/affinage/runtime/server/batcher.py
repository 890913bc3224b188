"""Requests of many clients, computed together: one thread, a bounded queue, a budget of tokens, a bound on waiting."""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any


class QueueFull(Exception):
    """The texts of a request do not fit in the queue; none of them was taken."""


class Closed(Exception):
    """Nothing is taken any more."""


@dataclass(eq=False)
class Ticket:
    """One request: its texts' results come in any order, and `done` is called once, by the computing thread."""

    done: Callable[["Ticket"], object]
    results: list[Any]
    left: int
    arrived: float
    failure: Exception | None = None
    failed: int = 0
    """which of its texts the failure is of"""
    cancelled: bool = False
    begun: float | None = None
    """when its first text was computed; `arrived`, this and `ended` on `time.perf_counter`"""
    ended: float | None = None


@dataclass(eq=False, slots=True)
class _Job:
    ticket: Ticket
    place: int
    work: Hashable
    payload: Any
    tokens: int


@dataclass(frozen=True)
class Batch:
    """What was computed together, for whoever counts."""

    work: Hashable
    texts: int
    tokens: int
    seconds: float
    failed: int


Compute = Callable[[Any, list[Any]], Sequence[Any]]
"""(work, payloads) -> a result each; texts are computed together when their work is equal"""


@dataclass
class Batcher:
    """Texts wait in one queue. A batch is its first text, and from all of the queue those of the same work that are
    nearest to it in length, so that little is padded; nobody waits for longer than those before.

    The thread waits up to `delay` seconds after the first text came, for more to compute at once, only while requests
    do come together: where the last batch was of one request and one alone is waiting, it is computed at once.
    """

    compute: Compute
    capacity: int
    """texts that may wait"""
    budget: int
    """tokens of a batch, padding included; one text alone may have more"""
    delay: float = 0.002
    observe: Callable[[Batch], object] = lambda batch: None
    _queue: deque[_Job] = field(default_factory=deque)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closing: bool = False
    _company: bool = False
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to compute."""
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def close(self, timeout: float | None = None) -> bool:
        """Take nothing more, compute what was taken, and stop; whether that was done within `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Texts in the queue."""
        return len(self._queue)

    def submit(
        self, work: Hashable, payloads: Sequence[Any], tokens: Sequence[int], done: Callable[[Ticket], object]
    ) -> Ticket:
        """Queue the texts of one request, all or none.

        Raises: QueueFull where they do not fit; Closed after `close`.
        """
        ticket = Ticket(done, [None] * len(payloads), len(payloads), time.perf_counter())
        jobs = [_Job(ticket, i, work, one, n) for i, (one, n) in enumerate(zip(payloads, tokens, strict=True))]
        with self._changed:
            if self._closing:
                raise Closed
            if len(self._queue) + len(jobs) > self.capacity:
                raise QueueFull
            self._queue.extend(jobs)
            self._changed.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Forget a request that nobody waits for; what is being computed is computed to its end."""
        with self._changed:
            ticket.cancelled = True
            self._queue = deque(job for job in self._queue if job.ticket is not ticket)

    def _run(self) -> None:
        while (jobs := self._next()) is not None:
            if not jobs:
                continue
            began = time.perf_counter()
            for job in jobs:
                job.ticket.begun = job.ticket.begun or began
            failed = self._answer(jobs)
            seconds = time.perf_counter() - began
            self.observe(Batch(jobs[0].work, len(jobs), sum(job.tokens for job in jobs), seconds, failed))

    def _next(self) -> list[_Job] | None:
        """The jobs of the next batch; None where there will be none."""
        with self._changed:
            while not self._queue:
                if self._closing:
                    return None
                self._changed.wait()
            self._wait_for_more()
            if not self._queue:  # cancelled meanwhile
                return []
            taken = self._alike()
            chosen = set(map(id, taken))
            self._queue = deque(job for job in self._queue if id(job) not in chosen)
            self._company = len({id(job.ticket) for job in taken}) > 1
            return taken

    def _alike(self) -> list[_Job]:
        """The first job and those of its work that are nearest to it in length, as many as fit when padded."""
        first = self._queue[0]
        others = sorted(
            (job for job in self._queue if job is not first and job.work == first.work),
            key=lambda job: abs(job.tokens - first.tokens),
        )
        taken, longest = [first], first.tokens
        for job in others:
            longest = max(longest, job.tokens)
            if longest * (len(taken) + 1) > self.budget:
                break
            taken.append(job)
        return taken

    def _wait_for_more(self) -> None:
        until = self._queue[0].ticket.arrived + self.delay
        while (
            self._queue and not self._closing and (self._company or self._queue[0].ticket is not self._queue[-1].ticket)
        ):
            remaining = until - time.perf_counter()
            if remaining <= 0 or max(job.tokens for job in self._queue) * len(self._queue) >= self.budget:
                return
            self._changed.wait(remaining)

    def _answer(self, jobs: list[_Job]) -> int:
        """Compute the jobs, all at once or, where that fails, each half for itself; how many failed."""
        try:
            results = self.compute(jobs[0].work, [job.payload for job in jobs])
        except Exception as error:  # whatever it was, it concerns one text, and the others have a right to their answer
            if len(jobs) > 1:
                half = len(jobs) // 2
                return self._answer(jobs[:half]) + self._answer(jobs[half:])
            if jobs[0].ticket.failure is None:
                jobs[0].ticket.failure, jobs[0].ticket.failed = error, jobs[0].place
            results = [None]
        for job, result in zip(jobs, results, strict=True):
            ticket = job.ticket
            ticket.results[job.place] = result
            ticket.left -= 1
            if not ticket.left:
                ticket.ended = time.perf_counter()
                if not ticket.cancelled:
                    ticket.done(ticket)
        return sum(result is None for result in results)
