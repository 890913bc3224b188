"""What a compressed model may cost and lose: `latency<=0.5x, size<=20MB, drop<=1pt`, and how far a model is from it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from affinage.errors import InputError, legible, unknown

Cost = Literal["latency", "size", "memory"]
COSTS: tuple[Cost, ...] = ("latency", "size", "memory")
DROP = "drop"

_UNITS: Mapping[str, Mapping[str, float]] = {
    "latency": {"ms": 1.0, "s": 1e3},
    "size": {"kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
}
"""quantity -> unit -> how many ms, or bytes"""
_TERM = re.compile(
    r"(?P<name>[A-Za-z_-]+)\s*(?P<sign><=|>=|==|<|>|=|≤)\s*(?P<number>[^\s%×A-Za-z<>=≤]+)\s*(?P<unit>\S*)"
)
_EXAMPLE = "latency<=0.5x, size<=20MB, memory<=300MB, drop<=1pt"


def more_is_lost(lost: float, allowed: float) -> bool:
    """Whether the difference of two scores is above what is allowed: a point of a hundred, subtracted, is a little more
    or less than 0.01.
    """
    return lost > allowed + 1e-9


@dataclass(frozen=True)
class Limit:
    """One term: what a model may cost, or lose, at most."""

    name: Literal["latency", "size", "memory", "drop"]
    most: float
    """relative: a share of the uncompressed model's. Else ms, bytes, or for `drop` a share of the whole score: 0.01 is
    a point of a hundred"""
    relative: bool
    said: str
    """as a person wrote it, without blanks"""

    def share(self, value: float, uncompressed: float) -> float:
        """`value` as a share of what is allowed: met up to 1. Costs in ms or bytes; of `drop`, the two scores."""
        if self.name == DROP:
            lost = uncompressed - value
            allowed = self.most * (abs(uncompressed) if self.relative else 1.0)
            share = max(0.0, lost) / allowed if allowed else (0.0 if lost <= 0 else math.inf)
            return share if more_is_lost(lost, allowed) else min(share, 1.0)
        allowed = self.most * (uncompressed if self.relative else 1.0)
        return value / allowed


@dataclass(frozen=True)
class Budget:
    """Terms that all are to be met."""

    limits: tuple[Limit, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """`latency<=0.5x, drop<=1pt`: costs as a share of the uncompressed model (`0.5x`) or in ms, s, kB, MB, GB; what
        may be lost in points of a hundred (`1pt`) or as a share of the uncompressed score (`1%`).

        Raises: InputError naming every problem.
        """
        limits: list[Limit] = []
        problems: list[str] = []
        for part in (part.strip() for part in text.split(",")):
            try:
                limit = _limit(part)
            except InputError as error:
                problems.append(str(error))
                continue
            if any(limit.name == other.name for other in limits):
                problems.append(f"'{limit.said}': {limit.name} is limited twice")
            limits.append(limit)
        if not problems and all(limit.name == DROP for limit in limits):
            problems.append(
                "it says what may be lost, and nothing that is to become smaller: add latency, size or memory"
            )
        if problems:
            raise InputError(f"budget '{legible(text)}', expected such as '{_EXAMPLE}':\n  " + "\n  ".join(problems))
        return cls(tuple(limits))

    def __str__(self) -> str:
        return ", ".join(limit.said for limit in self.limits)

    @property
    def costs(self) -> tuple[Limit, ...]:
        """Those of latency, size and memory."""
        return tuple(limit for limit in self.limits if limit.name != DROP)

    @property
    def drop(self) -> Limit | None:
        """What may be lost."""
        return next((limit for limit in self.limits if limit.name == DROP), None)

    def asks_for(self, name: str) -> bool:
        """Whether a term is about this quantity."""
        return any(limit.name == name for limit in self.limits)

    def shares(self, found: Mapping[str, float], uncompressed: Mapping[str, float]) -> dict[str, float]:
        """Quantity -> share of what is allowed, of the terms that `found` has a figure for (the score as `drop`)."""
        limits = [limit for limit in self.limits if limit.name in found]
        return {limit.name: limit.share(found[limit.name], uncompressed[limit.name]) for limit in limits}


def _limit(part: str) -> Limit:
    """Raises: InputError where it is none."""
    if not part:
        raise InputError("there is a term without anything in it: one comma too many, or no budget at all")
    match = _TERM.fullmatch(part)
    said = legible(part)
    if match is None:
        point = "; decimals have a point, as in 0.5" if part[0].isdigit() else ""
        raise InputError(f"'{said}': expected QUANTITY<=NUMBER and a unit, as latency<=0.5x{point}")
    name, sign = match["name"].lower(), match["sign"]
    if name not in (*COSTS, DROP):
        raise InputError(f"'{said}': " + unknown("quantity", match["name"], (*COSTS, DROP)))
    if sign not in ("<=", "≤"):
        raise InputError(f"'{said}': a budget says what is allowed at most, with <=, not with {sign}")
    try:
        number = float(match["number"])
    except ValueError:
        raise InputError(f"'{said}': '{legible(match['number'])}' is no number, as 0.5 or 20 (with a point)") from None
    if not math.isfinite(number) or number < 0 or (number == 0 and name != DROP):
        raise InputError(f"'{said}': expected a number above 0, got {number:g}")
    return _drop(number, match["unit"], said) if name == DROP else _cost(name, number, match["unit"], said)  # type: ignore[arg-type]


def _drop(number: float, unit: str, said: str) -> Limit:
    if unit not in ("pt", "pts", "%"):
        came = f"the unit '{legible(unit)}'" if unit else "no unit"
        raise InputError(f"'{said}': {came}; expected pt (points of a hundred) or % (of the uncompressed score)")
    if number > 100:
        raise InputError(f"'{said}': no score can lose more than 100")
    return Limit("drop", number / 100, unit == "%", "".join(said.split()))


def _cost(name: Cost, number: float, unit: str, said: str) -> Limit:
    units = _UNITS["latency" if name == "latency" else "size"]
    if unit in ("x", "×"):
        if number >= 1:
            raise InputError(
                f"'{said}': the uncompressed model is 1x, so that this asks for nothing; take less than 1x"
            )
        return Limit(name, number, True, "".join(said.split()))
    exact = {key.lower(): scale for key, scale in units.items()}
    if unit.lower() not in exact:
        came = f"the unit '{legible(unit)}'" if unit else "no unit"
        allowed = f"x (times the uncompressed model's) or {', '.join(units)}"
        raise InputError(f"'{said}': {came}; expected {allowed}")
    return Limit(name, number * exact[unit.lower()], False, "".join(said.split()))
