"""Tokens a second and peak memory of affinage's training beside the loops the field writes: training.py [OUT].

Every cell is a fresh process; the ways take turns, so that what else the machine does hits all of them. Writes
OUT/report.json (default: benchmarks/training); training_page.py makes docs/training-speed.md of it.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from affinage.report.provenance import provenance
from affinage.training.arguments import computes_in_bf16

HERE = Path(__file__).parent / "training"
ROUNDS, SECONDS = 3, 12.0
PLAIN = ("plain, padded to 128", "plain, padded to the longest", "Trainer's defaults")
AIMS = {
    ("distilcamembert", "affinage"): 10,
    ("distilcamembert", "affinage, masked tokens"): 15,
    ("distilcamembert", "affinage, cached teacher"): 15,
    ("tinybert", "affinage"): 5,
    ("mlm", "affinage"): 5,
}
"""times the first plain loop"""


@dataclass(frozen=True)
class Way:
    """One way of training, in one process with all cores."""

    objective: str
    name: str

    def measured(self, texts: Path) -> dict[str, Any]:
        """Tokens, seconds, losses and peak memory."""
        script = "plain.py" if self.name in PLAIN else "ours.py"
        found = subprocess.run(
            [sys.executable, str(HERE / script), self.name, self.objective, str(texts), str(SECONDS)],
            env={**os.environ, "OMP_NUM_THREADS": str(os.cpu_count() or 1), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode:
            raise SystemExit(f"{self.name}, {self.objective}: {found.stderr[-2000:]}")
        measured: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
        return measured


def ways() -> list[Way]:
    """All of them."""
    ours = {
        "distilcamembert": ("affinage", "affinage, masked tokens", "affinage, cached teacher"),
        "tinybert": ("affinage",),
        "mlm": ("affinage",),
    }
    return [Way(objective, name) for objective, names in ours.items() for name in (*PLAIN, *names)]


def write_texts(path: Path) -> None:
    """The reviews and articles that come with affinage, one a line: of mixed length, rows of 128 are 44 % full."""
    data = resources.files("affinage.assets") / "data"

    def column(task: str, name: str) -> list[str]:
        parts = [(data / task / f"{part}.jsonl").read_text(encoding="utf-8") for part in ("train", "test")]
        return sorted({json.loads(line)[name] for part in parts for line in part.splitlines()})

    texts = [" ".join(text.split()) for text in (*column("sentiment", "text"), *column("qa", "context"))]
    random.Random(0).shuffle(texts)
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")


def main(out: Path) -> None:
    rates: dict[Way, list[float]] = {way: [] for way in ways()}
    memory: dict[Way, list[int]] = {way: [] for way in ways()}
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.txt"
        write_texts(texts)
        for number in range(ROUNDS):
            for way in rates:
                found = way.measured(texts)
                rates[way].append(found["tokens"] / found["seconds"])
                memory[way].append(found["peak_memory_bytes"])
                print(f"round {number + 1}: {way.objective}, {way.name}: {rates[way][-1]:,.0f}", file=sys.stderr)
    cells = [cell(way, rates, memory) for way in rates]
    made = provenance(command="python benchmarks/training.py", seed=0, recipe_sha256=None, data={}, seconds=0.0)
    bf16 = computes_in_bf16("auto")
    report = {
        "rounds": ROUNDS,
        "seconds": SECONDS,
        "bf16": bf16,
        "provenance": made.model_dump(mode="json"),
        "cells": cells,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def cell(way: Way, rates: dict[Way, list[float]], memory: dict[Way, list[int]]) -> dict[str, Any]:
    """The medians of a way over the rounds, and of its ratio to the first plain loop in the same round."""
    base = rates[Way(way.objective, PLAIN[0])]
    ratios = sorted(ours / plain for ours, plain in zip(rates[way], base, strict=True))
    return {
        "objective": way.objective,
        "way": way.name,
        "tokens_per_second": statistics.median(rates[way]),
        "ratio": statistics.median(ratios),
        "ratio_low": ratios[0],
        "ratio_high": ratios[-1],
        "peak_memory_bytes": max(memory[way]),
        "aim": AIMS.get((way.objective, way.name)),
    }


if __name__ == "__main__":
    arguments: Sequence[str] = sys.argv[1:]
    main(Path(arguments[0]) if arguments else HERE)
