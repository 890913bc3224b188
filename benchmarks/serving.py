"""A served model under load beside the offline stream of the same texts: serving.py DIR [SECONDS [CLIENTS [THREADS]]].

64 clients (each sends its next text when it has its answer) for 300 seconds in all, in rounds; after each round, half
as long, the offline stream: `predict` of the same texts with the same threads. What slows the machine for a while so
slows both; the share is the median of the rounds' own. DIR: an exported folder of a text classifier, or a shape of
benchmarks/onnx_runtime.py such as 6x768: random int8 weights under the shipped tokenizer. Lengths follow the
committed list (mean 40 tokens, 256 at most). The clients are one process of their own and take CPU from the server: on
two cores that is part of the figure. Prints one JSON object.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

import affinage

WORDS = (
    *(
        "la",
        "le",
        "les",
        "un",
        "une",
        "de",
        "du",
        "des",
        "et",
        "ou",
        "dans",
        "sur",
        "pour",
        "avec",
        "sans",
        "très",
        "bien",
    ),
    *(
        "cave",
        "fromage",
        "train",
        "ville",
        "jour",
        "nuit",
        "pluie",
        "lait",
        "marché",
        "village",
        "hiver",
        "prix",
        "vert",
    ),
    *("plus", "moins", "mal", "bon", "grand", "petit", "vieux", "jeune", "noir"),
)
POOL, CHUNK = 2_000, 500
"""different texts; those of one call of the offline stream"""
ROUND = 15.0
"""seconds of load between two turns of the offline stream"""


def mixed_lengths() -> tuple[int, ...]:
    """The committed list; without `runtime.workload`, which needs transformers."""
    path = resources.files("affinage.assets") / "benchmark" / "mixed_lengths.json"
    return tuple(json.loads(path.read_bytes())["lengths"])


def texts(folder: Path) -> list[str]:
    """Texts whose rows have the lengths of the list, as this model's tokenizer counts."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    a_word = len(tokenizer.encode(" ".join(WORDS)).ids) / len(WORDS)
    drawn = np.random.default_rng(0)
    lengths = drawn.choice(mixed_lengths(), POOL)
    return [" ".join(drawn.choice(WORDS, max(1, round((n - 2) / a_word)))) for n in lengths]


async def client(port: int, mine: Iterator[bytes], until: float, latencies: list[float], errors: list[str]) -> None:
    """One person who asks again as soon as there is an answer; a request is one write, an answer a few reads."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while time.perf_counter() < until:
            began = time.perf_counter()
            writer.write(next(mine))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            latencies.append(time.perf_counter() - began)
            if not head.startswith(b"HTTP/1.1 200 "):
                errors.append(f"{head[:15].decode()} {body[:80].decode()}")
    except (OSError, asyncio.IncompleteReadError) as error:
        errors.append(repr(error))
    finally:
        writer.close()


def requests_of(folder: Path) -> list[bytes]:
    """The pool as HTTP requests."""
    made = []
    for text in texts(folder):
        body = json.dumps({"inputs": text, "truncate": True}).encode()
        kind = "Content-Type: application/json"
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\n{kind}\r\nContent-Length: {len(body)}"
        made.append(f"{head}\r\n\r\n".encode() + body)
    return made


def load(port: int, requests: list[bytes], seconds: float, clients: int) -> tuple[list[float], list[str], float]:
    """What the clients saw: seconds of each answer, errors, and how long it took in all."""

    def of(number: int) -> Iterator[bytes]:
        draw = np.random.default_rng(number)
        while True:
            yield from (requests[i] for i in draw.permutation(len(requests)))

    latencies: list[float] = []
    errors: list[str] = []

    async def everyone() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(client(port, of(i), began + seconds, latencies, errors) for i in range(clients)))
        return time.perf_counter() - began

    return latencies, errors, asyncio.run(everyone())


def offline(folder: Path, threads: int) -> None:
    """For each line of standard input, so many seconds of `predict` over the pool; prints texts a second."""
    predictor = affinage.load(folder, threads=threads)
    pool = texts(folder)
    predictor.predict(pool[:CHUNK])
    at = 0
    for line in sys.stdin:
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < float(line):
            done += len(predictor.predict(pool[at : at + CHUNK]))
            at = (at + CHUNK) % POOL
        print(done / (time.perf_counter() - began), flush=True)


@contextmanager
def stream(folder: Path, threads: int) -> Iterator[Callable[[float], float]]:
    """`offline` in a process of its own, which rests between two calls: seconds -> texts a second."""
    line = [sys.executable, __file__, "--offline", str(folder), str(threads)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        ask, answers = process.stdin, process.stdout

        def run(seconds: float) -> float:
            print(seconds, file=ask, flush=True)
            return float(answers.readline())

        yield run
        ask.close()


@contextmanager
def server(folder: Path, threads: int) -> Iterator[tuple[int, int]]:
    """`affinage serve` in a process of its own: its port and process id."""
    line = [sys.executable, "-m", "affinage", "serve", str(folder), "--port", "0", "--threads", str(threads)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(line, stderr=log, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        try:
            for _ in range(600):
                log.seek(0)
                ready = [text for text in log.read().splitlines() if '"ready"' in text]
                if ready or process.poll() is not None:
                    break
                time.sleep(0.1)
            yield int(json.loads(ready[0])["url"].rpartition(":")[2]), process.pid
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()


def megabytes(pid: int) -> dict[str, float]:
    """Resident memory now, and at its highest."""
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(lines[field].split()[0]) * 1024 / 1e6 for name, field in (("now", "VmRSS"), ("peak", "VmHWM"))}


def made(shape: str, where: Path) -> Path:
    """An exported folder of that shape: random int8 weights, the shipped tokenizer."""
    from onnx_runtime import network

    from affinage.models.checkpoint import load_tokenizer
    from affinage.runtime.onnx.build import onnx_graph
    from affinage.runtime.onnx.config import OnnxConfig
    from affinage.runtime.onnx.folder import write_graph, write_tokenizer
    from affinage.runtime.onnx.linear import Int8

    folder = where / shape
    folder.mkdir()
    tokenizer = load_tokenizer("shipped:teacher")
    write_graph(onnx_graph(network(shape), int8=Int8()), folder)
    write_tokenizer(tokenizer, folder)
    facts = {"kind": "sequence", "labels": ("0", "1"), "max_length": 512, "pad_id": 1}
    config = OnnxConfig(**facts, affinage=affinage.__version__, architecture="camembert", int8="dynamic")
    (folder / "config.json").write_text(config.to_json())
    return folder


def made_apart(shape: str, where: str) -> Path:
    """`made` in a fresh process, so that torch does not stay in this one."""
    subprocess.run([sys.executable, __file__, "--make", shape, where], check=True)
    return Path(where) / shape


def main(given: str, seconds: float = 300, clients: int = 64, threads: int = 2) -> dict[str, Any]:
    rounds = max(3, round(seconds / ROUND))
    latencies: list[float] = []
    errors: list[str] = []
    served: list[float] = []
    offline_speeds: list[float] = []
    with tempfile.TemporaryDirectory() as where:
        folder = Path(given) if Path(given).is_dir() else made_apart(given, where)
        requests = requests_of(folder)
        with server(folder, threads) as (port, pid), stream(folder, threads) as run:
            started = megabytes(pid)
            load(port, requests, 2.0, clients)  # warms up
            for _ in range(rounds):
                found, wrong, took = load(port, requests, seconds / rounds, clients)
                latencies += found
                errors += wrong
                served.append(len(found) / took)
                offline_speeds.append(run(seconds / rounds / 2))
            memory = megabytes(pid)
    p50, p95, p99 = np.quantile(latencies, [0.5, 0.95, 0.99]) * 1e3
    shares = np.array(served) / np.array(offline_speeds)
    return {
        "model": Path(given).name,
        "seconds": seconds,
        "clients": clients,
        "threads": threads,
        "cores": len(os.sched_getaffinity(0)),
        "requests": len(latencies),
        "errors": len(errors),
        "first_errors": errors[:3],
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "slowest_ms": max(latencies) * 1e3,
        "texts_per_second": served,
        "offline_texts_per_second": offline_speeds,
        "share_of_offline": {"median": float(np.median(shares)), "rounds": shares.tolist()},
        "server_megabytes": {"at_start": started["now"], "at_end": memory["now"], "peak": memory["peak"]},
    }


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        made(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1] == "--offline":
        offline(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        print(
            json.dumps(
                main(sys.argv[1], *(float(a) if i == 0 else int(a) for i, a in enumerate(sys.argv[2:]))), indent=1
            )
        )
