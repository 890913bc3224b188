"""Joules that the processor packages use, from Linux's powercap counters (Intel RAPL; AMD's appear there too)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

POWERCAP = Path("/sys/class/powercap")
_ROUNDS = 2


@dataclass(frozen=True)
class EnergyCounters:
    """The counters of all packages, in microjoules; one that reaches its range begins again at 0."""

    files: tuple[Path, ...]
    ranges: tuple[int, ...]

    @classmethod
    def find(cls, root: Path = POWERCAP) -> Self | None:
        """The machine's counters; None where there are none, or one of them may not be read (root only, on many).

        Parts of a package (cores, memory) and the whole platform are left out: their joules would count twice.
        """
        try:
            packages = [d for d in sorted(root.glob("intel-rapl:*")) if _text(d / "name").startswith("package")]
            counters = cls(
                tuple(d / "energy_uj" for d in packages),
                tuple(int(_text(d / "max_energy_range_uj")) for d in packages),
            )
        except (OSError, ValueError):
            return None
        return counters if packages and counters.read() is not None else None

    def read(self) -> tuple[int, ...] | None:
        """Microjoules of each package; None where that fails."""
        try:
            return tuple(int(_text(file)) for file in self.files)
        except (OSError, ValueError):
            return None

    def joules(self, work: Callable[[], object]) -> float | None:
        """Joules used while `work` is done, by whatever runs on the machine; None where they could not be read."""
        before = self.read()
        work()
        after = self.read()
        if before is None or after is None:
            return None
        # A counter that is now lower has begun again; at 100 W that is about once in 45 minutes.
        used = (
            end - start if end >= start else end + span - start
            for start, end, span in zip(before, after, self.ranges, strict=True)
        )
        return sum(used) / 1e6


def joules_per_1000_texts(
    passes: Sequence[Callable[[], object]], *, texts: int, counters: EnergyCounters | None
) -> list[float | None]:
    """For every model, whose pass answers `texts` texts: mean over rounds in which one follows the other."""
    if counters is None:
        return [None] * len(passes)
    rounds = [[counters.joules(work) for work in passes] for _ in range(_ROUNDS)]
    return [
        None if any(joules is None for joules in column) else 1e3 * sum(filter(None, column)) / (_ROUNDS * texts)
        for column in zip(*rounds, strict=True)
    ]


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
