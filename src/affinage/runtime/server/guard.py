"""What every request passes first and last: the token, the body's size and time as it comes, the log, the counters."""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from affinage.runtime.server import logs
from affinage.runtime.server.limits import Limits
from affinage.runtime.server.metrics import Metrics
from affinage.runtime.server.refusal import Refusal, too_large

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/", "/page.css", "/page.js", "/health", "/metrics", "/openapi.json"})
"""paths that need no token: they tell nothing of texts"""
GONE = 499
"""the status that is noted for a client that went away; nobody gets it"""
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]
_LINGER_SECONDS, _LINGER_BYTES = 2.0, 64 * 2**20
"""what is still read of a body that is too large, so that its sender comes to read the answer"""


class Disconnected(Exception):
    """The client has gone."""


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: App, *, limits: Limits, metrics: Metrics, token: str | None) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        # Digests have one length, so that comparing them takes the same time whatever was sent.
        self._digest = None if token is None else hashlib.sha256(f"Bearer {token}".encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (or the lifespan of the whole)."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = time.perf_counter()
        scope["affinage"] = notes = dict[str, Any]()
        status = GONE
        started = False

        async def answer(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        try:
            self._check_token(scope)
            if scope["method"] == "POST":
                receive = _replay(await self._body(scope, receive), receive)
            await self._app(scope, receive, answer)
        except Refusal as refusal:
            await _refuse(refusal, receive, answer)
        except Disconnected:
            status = GONE
        except Exception as error:  # a mistake of ours: it is logged without texts, and the server goes on
            logs.event("mistake", level=logging.ERROR, error=error)
            if not started:
                await _refuse(Refusal(500, "Backend", "internal error"), receive, answer)
        finally:
            seconds = time.perf_counter() - began
            endpoint = getattr(scope.get("route"), "path", None) or "other"
            self._metrics.request(endpoint, status, seconds)
            level = logging.DEBUG if endpoint in OPEN else logging.INFO
            milliseconds = round(1e3 * seconds, 2)
            logs.event(
                "request", level=level, method=_METHODS.get(scope["method"], "other"), endpoint=endpoint, status=status,
                ms=milliseconds, **notes,
            )  # fmt: skip

    def _check_token(self, scope: Scope) -> None:
        if self._digest is None or scope["path"] in OPEN:
            return
        given = b"\n".join(value for name, value in scope["headers"] if name == b"authorization")
        if not hmac.compare_digest(hashlib.sha256(given).digest(), self._digest):
            raise Refusal(
                401, "Unauthorized", "expected the header Authorization: Bearer TOKEN", www_authenticate="Bearer"
            )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body. Raises: Refusal where it is too large or too slow; Disconnected."""
        limit = self._limits.max_body_bytes
        said = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        error = f"the body has more than {limit:,} bytes"
        if len(said) > len(str(limit)) + 4 or int(said) > limit:  # the protocol lets nothing but digits through
            raise too_large(error)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.receive_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Disconnected
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise too_large(error)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            slow = f"the request did not come within {self._limits.receive_timeout:g} seconds"
            raise Refusal(408, "Timeout", slow) from None


_METHODS = {name: name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body once, then what the client does."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(refusal: Refusal, receive: Receive, send: Send) -> None:
    """Answer; where the body was not read to its end, some more of it is read, and the connection is closed."""
    unread = refusal.status in (408, 413, 401, 500)
    body = refusal.body()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
    headers |= {"connection": "close"} if unread else {}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": unread})
    if not unread:
        return
    if refusal.status in (401, 413):
        await _drain(receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    read = 0
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while read < _LINGER_BYTES:
                message = await receive()
                read += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
