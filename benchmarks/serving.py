"""A served model under load beside the offline stream of the same texts: serving.py DIR [SECONDS [CLIENTS [THREADS]]].

64 clients (each sends its next text when it has its answer) for 300 seconds; before and after, for a quarter as long, the
offline stream: `predict` of the same texts with the same threads. DIR: an exported folder of a text classifier, or a
shape of benchmarks/onnx_runtime.py such as 6x768: random int8 weights under the shipped tokenizer. Lengths follow the
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
from collections.abc import Iterator
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
POOL = 2_000
"""different texts"""


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


def load(port: int, folder: Path, seconds: float, clients: int) -> dict[str, Any]:
    """What the clients saw. A tenth of the time warms up and is not counted."""
    requests = []
    for text in texts(folder):
        body = json.dumps({"inputs": text, "truncate": True}).encode()
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        requests.append(f"{head}\r\n\r\n".encode() + body)

    def of(number: int) -> Iterator[bytes]:
        draw = np.random.default_rng(number)
        while True:
            yield from (requests[i] for i in draw.permutation(len(requests)))

    async def all_of(duration: float, latencies: list[float], errors: list[str]) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(client(port, of(i), began + duration, latencies, errors) for i in range(clients)))
        return time.perf_counter() - began

    asyncio.run(all_of(seconds / 10, [], []))
    latencies: list[float] = []
    errors: list[str] = []
    took = asyncio.run(all_of(seconds, latencies, errors))
    p50, p95, p99 = np.quantile(latencies, [0.5, 0.95, 0.99]) * 1e3
    return {
        "requests": len(latencies),
        "errors": len(errors),
        "first_errors": errors[:3],
        "texts_per_second": len(latencies) / took,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "slowest_ms": max(latencies) * 1e3,
    }


def offline(folder: Path, seconds: float, threads: int) -> float:
    """Texts a second of `predict` over the whole pool, again and again."""
    predictor = affinage.load(folder, threads=threads)
    pool = texts(folder)
    predictor.predict(pool[:200])
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        at = done % POOL
        predictor.predict(pool[at : at + 500])
        done += len(pool[at : at + 500])
    return done / (time.perf_counter() - began)


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


def in_own_process(function: str, *arguments: Any) -> Any:
    """What a function of this file returns in a fresh process, so that nothing of it stays in ours."""
    done = subprocess.run(
        [sys.executable, __file__, "--call", function, json.dumps(arguments)], stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def main(given: str, seconds: float = 300, clients: int = 64, threads: int = 2) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as where:
        folder = Path(given) if Path(given).is_dir() else Path(in_own_process("made", given, where))
        before = in_own_process("offline", str(folder), seconds / 4, threads)
        with server(folder, threads) as (port, pid):
            started = megabytes(pid)
            seen = load(port, folder, seconds, clients)
            memory = megabytes(pid)
        after = in_own_process("offline", str(folder), seconds / 4, threads)
    stream = (before + after) / 2
    return {
        "model": given,
        "seconds": seconds,
        "clients": clients,
        "threads": threads,
        "cores": len(os.sched_getaffinity(0)),
        **seen,
        "offline_texts_per_second": [before, after],
        "share_of_offline": seen["texts_per_second"] / stream,
        "server_megabytes": {"at_start": started["now"], "at_end": memory["now"], "peak": memory["peak"]},
    }


if __name__ == "__main__":
    if sys.argv[1] == "--call":
        name, arguments = sys.argv[2], json.loads(sys.argv[3])
        calls = {
            "made": lambda shape, where: str(made(shape, Path(where))),
            "offline": lambda d, *r: offline(Path(d), *r),
        }
        print(json.dumps(calls[name](*arguments)))
    else:
        print(
            json.dumps(
                main(sys.argv[1], *(float(a) if i == 0 else int(a) for i, a in enumerate(sys.argv[2:]))), indent=1
            )
        )
