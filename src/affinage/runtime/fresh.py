"""Load time and peak memory of a model in a fresh process, which has seen no other model."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from affinage.errors import InputError
from affinage.runtime.workload import Padded

_TIMEOUT = 1800
# -I and the caller's own search path: neither variables such as PYTHONPATH or PYTHONWARNINGS nor a torch.py in the
# working folder change what the process imports.
_PROGRAM = """
import json, sys
request = json.load(sys.stdin)
sys.path[:] = request.pop("path")
from affinage.runtime.fresh import answer
print(json.dumps(answer(**request)))
"""
_SETTINGS = {
    "HF_HUB_OFFLINE": "1",  # the caller has loaded the model: asking whether it is still the newest takes time
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


class FreshCost(NamedTuple):
    """What a fresh process measured."""

    load_seconds: float
    """config, tokenizer and weights, after the libraries are imported"""
    peak_memory_bytes: int
    """largest resident set, libraries included, after all batches were computed"""


def fresh_cost(model: str | Path, batches: Sequence[Padded], *, engine: str, threads: int) -> FreshCost:
    """Let a new process load the model and compute the batches.

    Raises: InputError where that process does not come to its end.
    """
    request = {
        "path": list(map(str, sys.path)),
        "model": str(model),
        "engine": engine,
        "threads": threads,
        "batches": [(batch.input_ids.tolist(), batch.attention_mask.tolist()) for batch in batches],
    }
    try:
        done = subprocess.run(
            [sys.executable or "python3", "-I", "-c", _PROGRAM],
            input=json.dumps(request),
            env={**os.environ, **_SETTINGS},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT,
        )
        if done.returncode:
            raise _failed(model, _reason(done))
        found = json.loads(done.stdout.splitlines()[-1])
        return FreshCost(float(found["load_seconds"]), int(found["peak_memory_bytes"]))
    except subprocess.TimeoutExpired:
        raise _failed(model, f"it took more than {_TIMEOUT // 60} minutes") from None
    except OSError as error:
        raise _failed(model, f"Python cannot be started: {error.strerror or error}") from None
    except (ValueError, LookupError):
        raise _failed(model, "it gave no answer") from None


def answer(*, model: str, engine: str, threads: int, batches: list[tuple[Any, Any]]) -> dict[str, float]:
    """What the fresh process does: `FreshCost` as a mapping."""
    import transformers

    from affinage.models.checkpoint import load_tokenizer, read_config
    from affinage.runtime.engines import ENGINES
    from affinage.runtime.memory import peak_memory_bytes

    for name in read_config(model).architectures or ():
        getattr(transformers, name, None)  # transformers imports an architecture when it is asked for
    arrays = [tuple(np.array(part, np.int64) for part in batch) for batch in batches]
    began = time.perf_counter()
    load_tokenizer(model)
    with ENGINES[engine].load(model, threads=threads) as forward:
        load_seconds = time.perf_counter() - began
        for input_ids, attention_mask in arrays:
            forward.run(input_ids, attention_mask)
    return {"load_seconds": load_seconds, "peak_memory_bytes": peak_memory_bytes()}


def _failed(model: str | Path, reason: str) -> InputError:
    return InputError(f"model '{model}': the process that measures its load time and memory failed: {reason}")


def _reason(done: "subprocess.CompletedProcess[str]") -> str:
    if done.returncode < 0:
        return f"it was ended by signal {-done.returncode}; was there memory enough to load the model a second time?"
    lines = done.stderr.strip().splitlines()
    return lines[-1].strip() if lines else f"exit code {done.returncode}"
