"""Servers for tests: in a thread of this process, or in a process of their own, on a free port of 127.0.0.1."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from affinage.runtime.server.limits import Limits
from affinage.runtime.server.models import Models
from affinage.runtime.server.run import uvicorn_server


class Answer(NamedTuple):
    status: int
    content: Any
    """of JSON, else text"""
    headers: dict[str, str]


def connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=60)


def ask(
    port: int,
    path: str,
    body: Any = None,
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
    connection: http.client.HTTPConnection | None = None,
) -> Answer:
    """One request; a body that is not bytes goes as JSON. Without a connection, on one of its own."""
    one = connection or connect(port)
    try:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if data is not None else {}
        one.request(method or ("GET" if data is None else "POST"), path, data, {**sent, **(headers or {})})
        response = one.getresponse()
        text = response.read().decode()
        kind = response.headers.get("content-type", "")
        return Answer(response.status, json.loads(text) if "json" in kind else text, dict(response.headers.items()))
    finally:
        if connection is None:
            one.close()


@contextmanager
def serving(predictors: Mapping[str, Any], *, token: str | None = None, **limits: Any) -> Iterator[int]:
    """A server of these predictors in a thread; its port."""
    models = Models(predictors, Limits(**limits))
    server = uvicorn_server(models, token=token)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(60)
        listening.close()
        assert not thread.is_alive()


class Process(NamedTuple):
    """`affinage serve` as people run it."""

    popen: "subprocess.Popen[str]"
    port: int
    lines: list[dict[str, Any]]
    """of its log, so far"""

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(60)


def _heed_interrupts() -> None:
    """Tests that run in the background of a shell inherit that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def process(folders: Sequence[Path | str], *options: str, env: Mapping[str, str] | None = None) -> Iterator[Process]:
    line = [sys.executable, "-m", "affinage", "serve", *map(str, folders), "--port", "0", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    popen = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=_heed_interrupts)
    lines: list[dict[str, Any]] = []
    assert popen.stderr is not None
    reader = threading.Thread(target=_read, args=(popen.stderr, lines), daemon=True)
    try:
        ready = popen.stderr.readline()
        while '"ready"' not in ready:
            assert ready, f"the server ended: {popen.wait(10)}"
            lines.append(json.loads(ready))
            ready = popen.stderr.readline()
        lines.append(json.loads(ready))
        reader.start()
        yield Process(popen, int(lines[-1]["url"].rpartition(":")[2]), lines)
    finally:
        popen.kill()
        popen.wait(10)
        if reader.ident is not None:
            reader.join(10)
        popen.stderr.close()


def _read(stream: Any, lines: list[dict[str, Any]]) -> None:
    for line in stream:
        lines.append(json.loads(line) if line.startswith("{") else {"event": "said", "message": line})


class Slow:
    """A stand-in for a predictor, which answers when it is let."""

    kind = "sequence"
    labels = ("no", "yes")
    max_length = 512

    def __init__(self) -> None:
        self.let = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[str]] = []

    def predict(self, inputs: list[str], *, top_k: int) -> list[dict[str, Any]]:
        self.batches.append(list(inputs))
        self.entered.set()
        assert self.let.wait(60)
        return [{"top": [{"label": text, "score": 1.0}]} for text in inputs]


class Vectors:
    """A stand-in for a predictor of embeddings."""

    kind = "embedding"
    labels = ()
    max_length = 8

    def predict(self, inputs: list[str], *, normalize: bool) -> list[dict[str, Any]]:
        return [
            {"embedding": [float(len(text)), float(normalize)], **({"truncated": True} if len(text) > 30 else {})}
            for text in inputs
        ]


class Finder:
    """A stand-in for a predictor of entities and answers: it finds the words it is told."""

    max_length = 512

    def __init__(self, kind: str, words: Mapping[str, str]) -> None:
        self.kind = kind
        self.labels = ("O", *(f"B-{group}" for group in dict.fromkeys(words.values()))) if kind == "token" else ()
        self._words = words

    def predict(self, inputs: list[Any], **_: Any) -> list[dict[str, Any]]:
        return [self._entities(text) if isinstance(text, str) else self._answer(text["context"]) for text in inputs]

    def _entities(self, text: str) -> dict[str, Any]:
        found = [
            {
                "entity_group": group,
                "score": 0.9,
                "word": word,
                "start": text.index(word),
                "end": text.index(word) + len(word),
            }
            for word, group in self._words.items()
            if word in text
        ]
        return {"entities": found}

    def _answer(self, context: str) -> dict[str, Any]:
        word = next(iter(self._words))
        start = context.index(word)
        return {"answer": word, "score": 0.8, "start": start, "end": start + len(word)}
