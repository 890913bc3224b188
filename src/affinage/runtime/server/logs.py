"""One JSON object a line on stderr: what happened, never a text, a body, a header or an error's message."""

import json
import logging
import sys
import time
import traceback
from typing import Any

LEVELS = ("debug", "info", "warning", "error")
log = logging.getLogger("affinage.serve")


class JsonLines(logging.Formatter):
    """A record's `fields`, or its message for other libraries' records; of an exception the class and the places."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: dict[str, Any] = {"time": at, "level": record.levelname.lower()}
        line |= getattr(record, "fields", None) or {"event": record.name, "message": str(record.msg).strip()[:200]}
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = traceback.extract_tb(error.__traceback__)[-8:]
            line["error"] = type(error).__name__
            line["at"] = [f"{frame.filename.rpartition('site-packages/')[2]}:{frame.lineno}" for frame in frames]
        return json.dumps(line, ensure_ascii=False)


def set_up(level: str = "info") -> None:
    """Send the server's records, and uvicorn's, to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("affinage.serve", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [] if name == "uvicorn.error" else [handler]
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(level.upper() if name == "affinage.serve" else logging.WARNING)


def event(name: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """Log that something happened; fields are numbers and names, no texts."""
    if log.isEnabledFor(level):
        exc_info = None if error is None else (type(error), error, error.__traceback__)
        log.log(level, name, extra={"fields": {"event": name, **fields}}, exc_info=exc_info)
