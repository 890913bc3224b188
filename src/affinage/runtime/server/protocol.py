"""HTTP/1.1 on one connection: uvicorn's, with a bound on slow headers and readers, and an end that loses nothing."""

import asyncio
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

_DRAINING_SECONDS = 3.0
"""how long a connection that waits for its next request is kept when the server stops: it may be on its way"""
_READER_SECONDS = 10.0
"""how long a client may take to read what is left of an answer, once its connection is to be closed"""


class Connection(H11Protocol):
    """One client's connection."""

    receive_timeout: ClassVar[float] = 10.0
    """seconds from a request's first byte (or from the connection) to the end of its headers"""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._deadline: asyncio.TimerHandle | None = None
        self._draining = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Headers are expected from now on."""
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._headers_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes; those of a new request must make whole headers in time."""
        before = self.cycle
        if before is None or before.response_complete:
            self._expect_headers()
        super().data_received(data)
        if self.cycle is not before:
            self._headers_came()

    def handle_events(self) -> None:
        """As uvicorn; while the server stops, the answer to a request that still came says that it is the last."""
        before = self.cycle
        super().handle_events()
        if self._draining and self.cycle is not before and not self.cycle.response_complete:
            self._last_answer()

    def send_400_response(self, msg: str) -> None:
        """To what is no HTTP; a body that breaks off in the middle of an answer ends the connection."""
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.close()

    def on_response_complete(self) -> None:
        """The next request may come; or, where the connection ends here, what is sent must be read in time."""
        super().on_response_complete()
        if self.transport.is_closing():
            self.loop.call_later(_READER_SECONDS, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """Nobody asked for long."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(_READER_SECONDS, self.transport.abort)

    def shutdown(self) -> None:
        """The server stops: what is being answered is answered, and so is what has already been sent."""
        self._draining = True
        if self.cycle is not None and not self.cycle.response_started:
            self._last_answer()
        else:  # also where the answer's headers are gone, and could not say that it is the last
            self.loop.call_later(_DRAINING_SECONDS, self._close_if_idle)

    def _last_answer(self) -> None:
        self.cycle.keep_alive = False
        # uvicorn copies it from there to the answer; the list may be another one than it was: the application's
        self.cycle.scope["headers"] = [*self.cycle.scope["headers"], CLOSE_HEADER]

    def _close_if_idle(self) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.loop.call_later(_DRAINING_SECONDS, self._close_if_idle)

    def _expect_headers(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.receive_timeout, self._too_slow)

    def _headers_came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.abort()


def connection_class(receive_timeout: float) -> type[Connection]:
    """The class with that timeout; uvicorn makes its objects itself."""
    return type("Connection", (Connection,), {"receive_timeout": receive_timeout})
