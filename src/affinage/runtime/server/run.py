"""The server's process: a socket, the models, uvicorn, and an orderly end."""

import logging
import signal
import socket
import time
from collections.abc import Callable, Mapping

import uvicorn

from affinage.errors import InputError
from affinage.runtime.server import logs
from affinage.runtime.server.app import make_app
from affinage.runtime.server.limits import Limits
from affinage.runtime.server.models import Models, load_models
from affinage.runtime.server.protocol import connection_class

_IDLE_SECONDS = 75  # longer than load balancers keep their idle connections (60 s), so that they close them, not we


def run(
    folders: Mapping[str, str],
    *,
    host: str,
    port: int,
    token: str | None,
    limits: Limits,
    threads: int | None,
    log_level: str = "info",
) -> None:
    """Serve until SIGTERM or Ctrl-C, and then until what was accepted is answered.

    Raises: InputError for an address that cannot be used (before the models are loaded) or a model that cannot be read.
    """
    logs.set_up(log_level)
    listening = _bind(host, port)
    try:
        began = time.perf_counter()
        models = Models(load_models(folders, threads=threads), limits)
        seconds = time.perf_counter() - began
        server = uvicorn_server(models, token=token, on_listening=lambda: _say_ready(models, listening, seconds, token))
        # uvicorn raises the signal again when it has finished; a server that was asked to stop and did has not failed.
        signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            server.run(sockets=[listening])
        except OSError as error:  # another server took the address while the models were loaded
            raise _taken(host, port, error) from None
        logs.event("stopped")
    finally:
        listening.close()


class _Server(uvicorn.Server):
    """uvicorn's, which says when it listens."""

    on_listening: Callable[[], object] = staticmethod(lambda: None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """From its end on, clients can connect."""
        await super().startup(sockets)
        self.on_listening()


def uvicorn_server(
    models: Models, *, token: str | None = None, on_listening: Callable[[], object] = lambda: None
) -> uvicorn.Server:
    """A server of these models; it takes the socket that its `run` is given."""
    limits = models.limits
    config = uvicorn.Config(
        make_app(models, token=token),
        http=connection_class(limits.receive_timeout),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=int(limits.receive_timeout + limits.timeout) + 1,
        limit_concurrency=limits.connections + 1,  # of which uvicorn refuses the last
    )
    server = _Server(config)
    server.on_listening = on_listening
    return server


def _bind(host: str, port: int) -> socket.socket:
    """The address, taken; nobody can connect before uvicorn listens. Raises: InputError where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise _taken(host, port, error) from None
    return listening


def _taken(host: str, port: int, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(f"{host}:{port} cannot be served on: {reason}; choose another --port or --host")


def _say_ready(models: Models, listening: socket.socket, seconds: float, token: str | None) -> None:
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    served = {name: models.endpoints[name] for name in models.predictors}
    if token is None and host not in ("127.0.0.1", "::1"):
        logs.event("open", level=logging.WARNING, note="no token: whoever reaches the address may use it")
    logs.event("ready", url=url, models=served, load_seconds=round(seconds, 3))
