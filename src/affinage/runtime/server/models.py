"""The models of one server: named, loaded, and asked through one thread."""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import affinage
from affinage.errors import InputError
from affinage.runtime.predictor import Predictor
from affinage.runtime.server import logs, work
from affinage.runtime.server.batcher import Batch, Batcher, Closed, QueueFull, Ticket
from affinage.runtime.server.limits import Limits
from affinage.runtime.server.metrics import Metrics
from affinage.runtime.server.refusal import Refusal, overloaded, wrong_model
from affinage.runtime.server.requests import AnyRequest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
Timings = dict[str, float]


def named(given: Sequence[str]) -> dict[str, str]:
    """`DIR` or `NAME=DIR` -> name of the model -> its folder; without a name it is the folder's.

    Raises: InputError where a name is given twice, or cannot stand in a path.
    """
    found: dict[str, str] = {}
    for one in given:
        name, _, folder = one.partition("=") if "=" in one and not Path(one).exists() else ("", "", one)
        name = name or Path(folder).resolve().name
        if not _NAME.fullmatch(name):
            raise InputError(f"model '{one}': '{name}' cannot be a name in a path; give one: NAME={folder}")
        if name in found:
            raise InputError(f"two models are called '{name}'; give one another name: NAME={folder}")
        found[name] = folder
    if not found:
        raise InputError("no model to serve")
    return found


def load_models(folders: Mapping[str, str], *, threads: int | None = None) -> dict[str, Predictor]:
    """The predictors. Raises: InputError for a folder that cannot be read."""
    return {name: affinage.load(folder, threads=threads) for name, folder in folders.items()}


@dataclass(frozen=True)
class Computed:
    """An answer and what it took."""

    content: Any
    characters: int
    texts: int
    total_ms: float
    queue_ms: float
    inference_ms: float


class Models:
    """What is served; `answer` is called on an event loop, the models run in one thread beside it."""

    def __init__(self, predictors: Mapping[str, Predictor], limits: Limits) -> None:
        self.predictors = dict(predictors)
        self.endpoints = {name: work.endpoints_of(predictor) for name, predictor in self.predictors.items()}
        self.limits = limits
        self.metrics = Metrics(waiting=lambda: self.batcher.waiting)
        self.batcher = Batcher(
            compute=self._compute,
            capacity=limits.queue,
            budget=limits.max_batch_tokens,
            delay=limits.max_delay_ms / 1e3,
            observe=self._observe,
        )

    def choose(self, endpoint: str, name: str | None) -> str:
        """The model that does it: the one named, else the first that can. Raises: Refusal where there is none."""
        if name is not None and name not in self.predictors:
            raise Refusal(404, "NotFound", f"unknown model; served: {', '.join(self.predictors)}")
        able = [one for one, offered in self.endpoints.items() if endpoint in offered]
        if not able:
            raise wrong_model(f"no model here does /{endpoint}")
        if name is not None and name not in able:
            raise wrong_model(f"model '{name}' does not do /{endpoint}; it does: {', '.join(self.endpoints[name])}")
        return name or able[0]

    async def answer(self, endpoint: str, name: str, body: AnyRequest, gone: asyncio.Future[Any]) -> Computed:
        """The answer. `gone`: done when the client has left, who then gets none.

        Raises: Refusal for every reason why there is none; asyncio.CancelledError where the client left.
        """
        predictor = self.predictors[name]
        asked = work.ask(endpoint, body, model=name, predictor=predictor, limits=self.limits)
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[None] = loop.create_future()

        def done(_: Ticket) -> None:
            loop.call_soon_threadsafe(_finish, finished)

        try:
            ticket = self.batcher.submit(asked.work, asked.payloads, asked.tokens, done)
        except QueueFull:
            raise overloaded("Model is overloaded") from None
        except Closed:
            raise Refusal(503, "Unhealthy", "the server is stopping", retry_after="1") from None
        try:
            await asyncio.wait({finished, gone}, timeout=self.limits.timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not finished.done():
                self.batcher.cancel(ticket)
        if not finished.done():
            if gone.done():
                raise asyncio.CancelledError
            raise Refusal(503, "Overloaded", f"no answer within {self.limits.timeout:g} seconds", retry_after="1")
        if ticket.failure is not None:
            raise _refused(ticket.failure, f"input {ticket.failed + 1}: " if not asked.single else "")
        begun, ended = ticket.begun or ticket.arrived, ticket.ended or ticket.arrived
        self.metrics.queued(begun - ticket.arrived)
        return Computed(
            content=work.answer(asked, ticket.results, max_length=predictor.max_length),
            characters=asked.characters,
            texts=len(asked.payloads),
            total_ms=1e3 * (ended - ticket.arrived),
            queue_ms=1e3 * (begun - ticket.arrived),
            inference_ms=1e3 * (ended - begun),
        )

    def _compute(self, asked: work.Work, payloads: list[Any]) -> Sequence[Any]:
        return work.compute(self.predictors[asked.model], asked, payloads)

    def _observe(self, batch: Batch) -> None:
        self.metrics.batch(batch)


def _finish(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _refused(failure: Exception, which: str) -> Refusal:
    """What the model said to a text; anything but a remark on the input is a failure of ours."""
    if isinstance(failure, InputError):
        return Refusal(422, "Tokenizer", which + str(failure).removeprefix("input 1: "))  # it was asked alone
    logs.event("failure", level=logging.ERROR, error=failure)
    return wrong_model("Inference failed")
