"""What a run logged on its way, as curves for plots."""

import math
from collections.abc import Mapping, Sequence

POINTS = 200

Curve = tuple[tuple[int, float], ...]
"""(step, value), by step"""


def curves(history: Sequence[Mapping[str, float]], names: Mapping[str, str]) -> dict[str, Curve]:
    """The Trainer's `log_history` as name -> curve, of at most `POINTS` points.

    `names`: key in the history -> name of the curve. Keys that start with `eval_` become `held-out …`, seconds aside.
    Values that are no number are left out: JSON has none.
    """
    found: dict[str, dict[int, float]] = {}
    for entry in history:
        for key, value in entry.items():
            name = names.get(key) or _held_out(key)
            if name is not None and isinstance(value, (int, float)) and math.isfinite(value):
                found.setdefault(name, {})[int(entry["step"])] = float(value)
    return {name: _thinned(sorted(points.items())) for name, points in found.items()}


def _held_out(key: str) -> str | None:
    measured = key.startswith("eval_") and key not in {"eval_seconds", "eval_runtime"}
    return f"held-out {key.removeprefix('eval_')}" if measured else None


def _thinned(points: Sequence[tuple[int, float]]) -> Curve:
    """Evenly spread over the points, the first and the last among them."""
    if len(points) <= POINTS:
        return tuple(points)
    last = len(points) - 1
    return tuple(points[round(i * last / (POINTS - 1))] for i in range(POINTS))
