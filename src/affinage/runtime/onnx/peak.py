"""Peak memory of a graph in a fresh process that has seen neither torch nor another model."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from affinage.data.encoding import Ints
from affinage.errors import InputError

_TIMEOUT = 600
_PROGRAM = """
import json, sys
request = json.load(sys.stdin)
sys.path[:] = request["path"]
import numpy as np
import tokenizers  # a program that reads texts has it
from affinage.runtime.memory import peak_memory_bytes
from affinage.runtime.onnx.session import OnnxEngine
engine = OnnxEngine(request["graph"], pad_id=0, threads=1)
engine.run({name: np.array(values, np.int64) for name, values in request["inputs"].items()})
print(json.dumps(peak_memory_bytes()))
"""


def peak_of_graph(graph: Path, inputs: Mapping[str, Ints]) -> int:
    """Largest resident set, in bytes, of a process that loads the graph and computes the inputs once, on one thread.

    Raises: InputError where that process does not come to its end.
    """
    request = {
        "path": list(map(str, sys.path)),
        "graph": str(graph),
        "inputs": {name: values.tolist() for name, values in inputs.items()},
    }
    try:
        done = subprocess.run(
            [sys.executable or "python3", "-I", "-c", _PROGRAM],
            input=json.dumps(request), capture_output=True, encoding="utf-8", errors="replace", timeout=_TIMEOUT,
        )  # fmt: skip
        return int(json.loads(done.stdout.splitlines()[-1]))
    except (subprocess.TimeoutExpired, OSError, ValueError, LookupError) as error:
        raise InputError(f"the process that measures a graph's memory failed: {type(error).__name__}") from None
