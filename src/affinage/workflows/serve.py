"""`affinage serve`: models behind HTTP until the process is told to stop."""

import re
from collections.abc import Sequence
from typing import Any

from affinage.errors import InputError, MissingExtra


def serve(
    models: str | Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    threads: int | None = None,
    log_level: str = "info",
    **limits: Any,
) -> None:
    """Serve folders (or hub names, with torch) until SIGTERM or Ctrl-C; see docs/serve.md.

    `models`: `DIR` or `NAME=DIR` each. `token`: what clients must send as Authorization: Bearer. `limits`: fields of
    `affinage.runtime.server.limits.Limits`.

    Raises: InputError where a bound, a name, the address or a model cannot be used; MissingExtra.
    """
    try:
        from affinage.runtime.server.limits import Limits
        from affinage.runtime.server.models import named
        from affinage.runtime.server.run import run
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "prometheus_client", "starlette", "h11"):
            raise
        raise MissingExtra(error.name, "serve") from None
    if token is not None and not re.fullmatch(r"[\x21-\x7e]{8,512}", token):
        raise InputError("the token: expected 8 to 512 visible ASCII characters, without spaces")
    run(
        named([models] if isinstance(models, str) else models),
        host=host,
        port=port,
        token=token,
        limits=Limits(**limits),
        threads=threads,
        log_level=log_level,
    )
