"""What a look at an untrained plan tells of a budget: its share of each limit, and whether any plan will do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from affinage.compression.budget import Budget
from affinage.compression.plan import Plan
from affinage.errors import InputError

SLACK = 1.15
"""by how much an estimate may be above a limit and the plan still be tried in full: it is measured there"""
FAR = 3.0
"""by how much every plan's estimated latency has to be above its limit for a budget to be refused untried.

Operations of int8 are counted at 0.45 of float32's and take 0.24 where they are quickest (research: 890 and 215 G
operations a second); what is not counted, norms and softmax, only makes a model slower than its estimate. That makes a
factor of 1.9; the rest is for other machines.
"""
_SURE = {"size": 1.0, "memory": SLACK, "latency": FAR}
"""quantity -> what share of its limit is surely too much: bytes are counted, memory is measured and varies a little"""


@dataclass(frozen=True)
class Glance:
    """What is known of a plan without recovery training, scoring and timing."""

    size_bytes: int
    parameters: int
    work: float
    """estimated latency as a share of the uncompressed model's: operations, integer ones counted for what they take"""
    loss: float
    """mean over calibration rows"""
    memory_bytes: int | None = None
    """measured, where the budget limits it"""


def worst_share(budget: Budget, glance: Glance, uncompressed: Mapping[str, float]) -> float:
    """The largest share of a limit that the plan takes, as far as a glance tells.

    `uncompressed`: size and memory in bytes, latency in ms; of them those that the budget limits are needed.
    """
    return max(_shares(budget, glance, uncompressed).values(), default=0.0)


def refuse_unreachable(budget: Budget, known: Sequence[tuple[Plan, Glance]], uncompressed: Mapping[str, float]) -> None:
    """Raises: InputError where no plan comes near the budget, the nearest named with its figures."""

    def excess(pair: tuple[Plan, Glance]) -> float:
        return max((share / _SURE[name] for name, share in _shares(budget, pair[1], uncompressed).items()), default=0.0)

    nearest = min(known, key=lambda pair: (excess(pair), pair[0].sha256))
    if excess(nearest) > 1:
        plan, glance = nearest
        raise InputError(
            f"budget '{budget}' cannot be reached: the nearest of {len(known)} plans, {plan.title}, has "
            f"{_figures(budget, glance, uncompressed)}; nothing was trained. Ask for less or let more plans be "
            "looked at with --tries (both go on from what was looked at), or name steps yourself with --plan"
        )


def _shares(budget: Budget, glance: Glance, uncompressed: Mapping[str, float]) -> dict[str, float]:
    """Quantity -> share of its limit."""
    found: dict[str, float] = {"size": glance.size_bytes}
    if budget.asks_for("latency"):
        found["latency"] = glance.work * uncompressed["latency"]
    if glance.memory_bytes is not None:
        found["memory"] = glance.memory_bytes
    return budget.shares(found, uncompressed)


def _figures(budget: Budget, glance: Glance, uncompressed: Mapping[str, float]) -> str:
    said = {"size": f"{glance.size_bytes / 1e6:,.2f} MB ({glance.size_bytes / uncompressed['size']:.3f}x)"}
    if budget.asks_for("latency"):
        said["latency"] = f"an estimated latency of {glance.work * uncompressed['latency']:.2f} ms ({glance.work:.2f}x)"
    if glance.memory_bytes is not None:
        share = glance.memory_bytes / uncompressed["memory"]
        said["memory"] = f"{glance.memory_bytes / 1e6:,.0f} MB in memory ({share:.2f}x)"
    return ", ".join(said[limit.name] for limit in budget.costs if limit.name in said)
