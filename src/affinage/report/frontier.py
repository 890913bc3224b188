"""Variants of a model, what each costs and scores, and which of them no other beats: the frontier."""

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

Axis = Literal["latency", "size", "memory"]
AXES: tuple[Axis, ...] = ("latency", "size", "memory")


class Variant(BaseModel):
    """One way to make a model smaller or faster: a point of the frontier."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """short and of its own within a task"""
    plan: str
    """the steps in one line; empty for a model that is not compressed"""
    task: str
    metric: str
    split: str | None = None
    score: float
    """a fraction; with several seeds their mean"""
    low: float | None = None
    high: float | None = None
    """bounds of its 95 % interval"""
    n: int
    """examples scored"""
    seeds: tuple[int, ...] = ()
    parameters: int
    """tied and shared ones once, packed integers each"""
    size_bytes: int
    latency_ms: float | None = None
    """median of one text of 128 tokens, or as many as the model takes"""
    speedup: float | None = None
    """the reference's time / its own, in one interleaved run"""
    speedup_low: float | None = None
    speedup_high: float | None = None
    """bounds of its 95 % interval over paired rounds"""
    engine: str | None = None
    """that was timed, such as `onnxruntime`"""
    memory_bytes: int | None = None
    """largest resident set of a fresh process that loads it and answers, libraries included"""
    within: bool | None = None
    """whether it meets the budget; None: there is none"""
    chosen: bool = False
    """whether it is the model of the run"""
    reference: bool = False
    """whether the others' speed-ups are over this one"""


def cost_of(variant: Variant, axis: Axis) -> float | None:
    """ms or bytes; None where it was not measured."""
    found = {"latency": variant.latency_ms, "size": variant.size_bytes, "memory": variant.memory_bytes}
    return found[axis]


def frontier(variants: Sequence[Variant], axis: Axis) -> list[Variant]:
    """Those that no other beats: by as good a score at as low a cost, one of the two better. Cheapest first."""
    known = [(variant, cost) for variant in variants if (cost := cost_of(variant, axis)) is not None]
    best = []
    for variant, cost in known:
        beaten = any(
            other.score >= variant.score and theirs <= cost and (other.score > variant.score or theirs < cost)
            for other, theirs in known
        )
        if not beaten:
            best.append((cost, variant))
    return [variant for _, variant in sorted(best, key=lambda pair: pair[0])]


def standing(variants: Sequence[Variant]) -> Callable[[Variant], list[Axis]]:
    """Variant -> the costs in which it is on the frontier; with none, it is dominated in all."""
    best = {axis: {id(v) for v in frontier(variants, axis)} for axis in AXES}
    return lambda variant: [axis for axis in AXES if id(variant) in best[axis]]
