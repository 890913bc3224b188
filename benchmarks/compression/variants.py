"""What the results say of each variant: what is kept, times faster and smaller, and which no other beats."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import stdev
from typing import Any

from experiment import LANGUAGES, SEEDS

AIMS = ((0.01, 8.0, 6.0), (0.035, 15.0, 12.0))
"""largest relative loss on average, times faster, times smaller, than the teacher"""


@dataclass(frozen=True)
class Variant:
    """One variant in one language: means over its tasks and seeds."""

    language: str
    name: str
    faster: float
    smaller: float
    kept: float
    """score / teacher's, mean over tasks"""
    lost: float
    """1 - score / teacher's, mean over tasks, nothing where it is above the teacher: one task makes up for no other"""
    around: float | None
    """half of its 95 % interval; None of the screen"""
    worst: float
    """the same on its worst task"""
    tasks: int
    seeds: int
    complete: bool
    """whether every task of the stage is there with every seed"""


def read(folder: Path) -> list[dict[str, Any]]:
    """All results."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.json"))]


def variants(results: Sequence[Mapping[str, Any]], stage: str) -> list[Variant]:
    """By language and name. Screened on the valid part, reported in the final on the last part there is."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in results:
        if one["stage"] == stage:
            groups.setdefault((one["language"], one["name"]), []).append(one)
    found = []
    for (language, name), group in groups.items():
        anew = timed_anew(results, language, stage)
        by_task: dict[str, list[Mapping[str, Any]]] = {}
        for one in group:
            by_task.setdefault(one["task"], []).append(one)
        shares = [[share_kept(one, stage) for one in of] for of in by_task.values()]
        means = [mean(of) for of in shares]
        wanted = [t for t in LANGUAGES[language].tasks if t.name in LANGUAGES[language].screened or stage == "final"]
        needed = len(wanted) * (len(SEEDS) if stage == "final" else 1)
        found.append(
            Variant(
                language=language,
                name=name,
                faster=anew[name] if anew else mean(one["speedup"]["ratio"] for one in group),
                smaller=mean(one["teacher_bytes"] / one["size_bytes"] for one in group),
                kept=mean(means),
                lost=mean(max(0.0, 1 - value) for value in means),
                around=around(list(by_task.values())) if stage == "final" else None,
                worst=min(means),
                tasks=len(shares),
                seeds=max(map(len, shares)),
                complete=len(group) >= needed,
            )
        )
    return sorted(found, key=lambda v: (v.language, -v.kept))


def on_frontier(found: Sequence[Variant], gain: Callable[[Variant], float]) -> list[Variant]:
    """Those with every task that no other such one beats in what is kept and what is gained; most kept first."""
    best: list[Variant] = []
    for one in sorted((v for v in found if v.complete), key=lambda v: (-v.kept, -gain(v))):
        if not best or gain(one) > gain(best[-1]):
            best.append(one)
    return best


def timed_anew(results: Sequence[Mapping[str, Any]], language: str, stage: str) -> dict[str, float]:
    """Name of a variant -> how many times faster; empty until all of the stage were timed once more on one machine."""
    own = [one for one in results if one["language"] == language]
    found = {one["name"]: one["speedup"]["ratio"] for one in own if one["stage"] == "speed"}
    return found if {one["name"] for one in own if one["stage"] == stage} <= found.keys() else {}


def share_kept(one: Mapping[str, Any], stage: str) -> float:
    """The variant's score by the teacher's: of the final on the test part, of the screen on the valid part."""
    return float(one["kept"]["value"]) if stage == "final" else by_the_teachers(one, "variant")


def by_the_teachers(one: Mapping[str, Any], model: str) -> float:
    """Score of a model of the result by the teacher's, on the last part that is there."""
    value = {score["model"]: score["value"] for score in one["scores"]}
    return float(value[model] / value["teacher"])


def around(by_task: Sequence[Sequence[Mapping[str, Any]]]) -> float:
    """Half of the 95 % interval of the mean over tasks: each task's own over its examples, which seeds share, and over
    the seeds, taken as independent of one another.
    """
    squares = []
    for group in by_task:
        examples = mean((one["kept"]["high"] - one["kept"]["low"]) / 2 for one in group)
        values = [one["kept"]["value"] for one in group]
        seeds = 1.96 * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
        squares.append(examples**2 + seeds**2)
    return sqrt(sum(squares)) / len(squares)


def mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
