"""Figures as people write them: 10B tokens, 138GB, layers=12,hidden=768; and how they are shown again."""

import math
import re
from collections.abc import Collection

from affinage.errors import InputError, unknown

_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "p": 1e15}
_BINARY = {"ki": 2.0**10, "mi": 2.0**20, "gi": 2.0**30, "ti": 2.0**40}


def count_of(text: str, *, name: str) -> float:
    """`10B`, `32.7e9`, `138GB`, `24GiB` as a number above 0; B after a figure alone is a billion, after a prefix bytes.

    Raises: InputError where it is none.
    """
    found = re.fullmatch(r"([0-9][0-9_,]*\.?[0-9]*(?:e[+-]?\d+)?)\s*([kmgtp]i?b?|b)?", text.strip().lower())
    if found:
        unit = found[2] or ""
        unit = unit[:-1] if len(unit) > 1 and unit.endswith("b") else unit
        value = float(found[1].replace(",", "").replace("_", "")) * (_SCALES | _BINARY).get(unit, math.nan)
        if 0 < value < math.inf:
            return value
    raise InputError(f"{name} '{text}': expected a number above 0, as 500000, 10M, 32.7B or 1e10")


def pairs_of(text: str, *, option: str, known: Collection[str]) -> dict[str, str]:
    """`layers=12,hidden=768` as a dictionary. Raises: InputError for what is no such list, or an unknown key."""
    found: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise InputError(f"{option} '{text}': expected key=value with commas between; keys: {', '.join(known)}")
        if key not in known:
            raise InputError(f"{option} '{text}': {unknown('key', key, known)}")
        found[key] = value
    return found


def shown_bytes(count: float) -> str:
    """`17.2 GB`, `903 MB`."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def shown_flops(count: float) -> str:
    """`637.9 MFLOP`, `2.09e+19 FLOP` beyond a thousand PFLOP."""
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if size <= count < 1e3 * size:
            return f"{count / size:,.1f} {unit}FLOP"
    return f"{count:,.0f} FLOP" if count < 1e6 else f"{count:.2e} FLOP"


def shown_hours(hours: float) -> str:
    """`41 seconds`, `12.5 minutes`, `5.8 hours`, `43.0 days`: in the unit in which the figure is easy to grasp."""
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    if hours >= 1.5:
        return f"{hours:.1f} hours"
    return f"{60 * hours:.1f} minutes" if hours >= 0.025 else f"{3600 * hours:.0f} seconds"
