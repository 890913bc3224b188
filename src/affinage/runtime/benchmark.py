"""How long models take, measured so that they can be compared: interleaved rounds, paired ratios, quantiles."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Run = Callable[[int, int], object]
"""(model, step) -> the step computed by that model"""

FEWEST = 3
"""rounds that are made whatever time they take, unless fewer were asked for"""
_RESAMPLES = 1_000


@dataclass(frozen=True)
class Timing:
    """Seconds of one cell: the same steps by every model, in rounds."""

    seconds: Floats
    """(R, S, M): rounds, steps of a round (batches), models"""

    @property
    def runs(self) -> int:
        """Steps timed a model."""
        rounds, steps, _ = self.seconds.shape
        return int(rounds * steps)

    def quantile_ms(self, model: int, fraction: float) -> float:
        """That quantile of a model's steps, in milliseconds."""
        return 1e3 * float(np.quantile(self.seconds[:, :, model], fraction))

    def round_seconds(self, model: int) -> Floats:
        """(R,) seconds of all the steps of a round."""
        summed: Floats = self.seconds[:, :, model].sum(axis=1)
        return summed

    def median_round(self, model: int) -> float:
        """Seconds of a model's median round."""
        return float(np.median(self.round_seconds(model)))

    def ratio(self, model: int, *, reference: int = 0, seed: int = 0) -> tuple[float, float, float]:
        """How many times faster than the reference: the median over rounds of the rounds' own ratios, and the 2.5th and
        97.5th percentile of that median over resampled rounds.
        """
        ratios = self.round_seconds(reference) / self.round_seconds(model)
        chosen = np.random.default_rng(seed).integers(len(ratios), size=(_RESAMPLES, len(ratios)))
        low, high = np.quantile(np.median(ratios[chosen], axis=1), [0.025, 0.975])
        return float(np.median(ratios)), float(low), float(high)


def interleave(
    run: Run,
    *,
    models: int,
    steps: int = 1,
    warmup: int,
    repeats: int,
    seconds: float,
    before: int = 0,
    on_round: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Time rounds in which every model computes every step, one model after the other; who begins rotates.

    What slows the machine for a while so slows all of them alike. `warmup` rounds are not counted. No further round
    begins after `repeats` of them or, once there are `FEWEST`, after `seconds`. `before`: how often a model
    computes a step before it is timed at it, for models of several sizes and engines: what a large one left of
    the caches, and threads of another library that still spin, are not the next one's. `on_round` is called between
    rounds.
    """

    def one_round(number: int) -> Floats:
        taken = np.zeros((steps, models))
        for step in range(steps):
            for turn in range(models):
                model = (number + step + turn) % models
                for _ in range(before):
                    run(model, step)
                began = clock()
                run(model, step)
                taken[step, model] = clock() - began
        return taken

    with _no_collector():
        for number in range(warmup):
            one_round(number)
        rounds: list[Floats] = []
        began = clock()
        while len(rounds) < min(FEWEST, repeats) or (len(rounds) < repeats and clock() - began < seconds):
            rounds.append(one_round(len(rounds)))
            on_round()
    return Timing(np.stack(rounds))


@contextmanager
def _no_collector() -> Iterator[None]:
    """Python's garbage collector stops the process for milliseconds, at whoever's turn it is."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
