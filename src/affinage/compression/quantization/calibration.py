"""The range that the input of each linear map has on calibration texts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.errors import InputError
from affinage.models.encoder import forward_masked_lm
from affinage.models.layout import usual_class_name
from affinage.models.task_encoder import forward_task
from affinage.signals import Batch

Ranges = Literal["min-max", "percentile", "entropy"]

LEAST_TOKENS = 64
BINS = 2048
LEVELS = 128
"""of one sign in 8 bits"""


def input_ranges(
    model: PreTrainedModel,
    paths: Sequence[str],
    calibration: Sequence[Batch] | None,
    ranges: Ranges,
    *,
    outside: float = 0.0,
) -> dict[str, tuple[float, float]]:
    """path of a linear map -> lowest and highest value of its input that is kept, of real tokens only.

    min-max: all that was seen. percentile: histogram quantiles outside / 2 and 1 - outside / 2. entropy: what was seen
    within ±t, t of the least KL (`entropy_threshold`). A map that no text passed through gets (0, 0).

    Raises: InputError where there is no calibration text, or too little.
    """
    batches = enough(calibration)
    seen = dict.fromkeys(paths, (0.0, 0.0))

    def widen(path: str, x: Tensor) -> None:
        low, high = seen[path]
        seen[path] = (min(low, float(x.amin())), max(high, float(x.amax())))

    inputs_seen(model, paths, batches, widen)
    if ranges == "min-max":
        return seen
    counts = {path: np.zeros(BINS) for path in paths}

    def count(path: str, x: Tensor) -> None:
        low, high = seen[path]
        values = x if ranges == "percentile" else x.abs()
        low, high = (low, high) if ranges == "percentile" else (0.0, max(-low, high))
        if high > low:
            counts[path] += torch.histc(values, BINS, low, high).double().numpy()

    inputs_seen(model, paths, batches, count)
    kept = {}
    for path, (low, high) in seen.items():
        if ranges == "percentile":
            kept[path] = _within(counts[path], low, high, outside)
        else:
            limit = max(-low, high) * entropy_threshold(counts[path])
            kept[path] = (max(low, -limit), min(high, limit))
    return kept


def inputs_seen(
    model: PreTrainedModel, paths: Sequence[str], batches: Sequence[Batch], see: Callable[[str, Tensor], None]
) -> None:
    """`see(path, x)` with x (n, in) float32 for every pass of real tokens through the map at `path`."""
    device = next(model.parameters()).device
    with torch.no_grad():
        for batch in batches:
            here = batch.to(device)
            with _listening(model, paths, here.mask, see):
                run(model, here)


def run(model: PreTrainedModel, batch: Batch) -> None:
    """One forward pass, the head's inner maps included; not the projection onto the vocabulary."""
    if usual_class_name(type(model).__name__).endswith("ForMaskedLM"):
        forward_masked_lm(model, batch, frozenset({"head"}))
    else:
        forward_task(model, batch, frozenset({"logits"}))


def enough(calibration: Sequence[Batch] | None) -> Sequence[Batch]:
    """The calibration batches. Raises: InputError where they are missing, or hold fewer than 64 tokens."""
    tokens = sum(int(batch.mask.sum()) for batch in calibration or ())
    if not calibration or tokens < LEAST_TOKENS:
        raise InputError(
            f"calibration texts of {tokens} tokens: at least {LEAST_TOKENS} are needed to measure ranges; give the "
            "training part of a task, or a corpus"
        )
    return calibration


def entropy_threshold(counts: NDArray[np.float64]) -> float:
    """Share (0, 1] of the histogram's width that is kept, counts of |x| in equal bins from 0.

    Migacz 2017: the cut i of the least KL(P || Q), P the first i bins with the rest added to the last of them, Q the
    first i bins merged into 128, each spread evenly over those of its bins that hold anything.
    """
    total = counts.sum()
    if not total:
        return 1.0
    best, threshold = np.inf, 1.0
    for i in range(LEVELS, len(counts) + 1, 8):
        p = counts[:i].copy()
        p[-1] += counts[i:].sum()
        level = np.arange(i) * LEVELS // i
        filled = counts[:i] > 0
        mass = np.bincount(level, counts[:i], LEVELS)
        holders = np.bincount(level, filled, LEVELS)
        q = np.where(filled, (mass / np.maximum(holders, 1))[level], 0.0)
        if not q.sum() or (p[-1] > 0 and q[-1] == 0):
            continue  # P has mass where Q has none: KL is infinite
        used = p > 0
        ours, theirs = p[used] / total, q[used] / q.sum()
        divergence = float((ours * np.log(ours / theirs)).sum())
        if divergence < best:
            best, threshold = divergence, i / len(counts)
    return threshold


def _within(counts: NDArray[np.float64], low: float, high: float, outside: float) -> tuple[float, float]:
    """Edges of the bins between which all but `outside` of the values lie, half of these on each side."""
    total = counts.sum()
    if not total:
        return low, high
    edges = np.linspace(low, high, len(counts) + 1)
    below = np.cumsum(counts) / total
    first = int(np.searchsorted(below, outside / 2, side="right"))
    last = int(np.searchsorted(below, 1 - outside / 2, side="left"))
    return min(0.0, float(edges[first])), max(0.0, float(edges[min(last, len(counts) - 1) + 1]))


@contextmanager
def _listening(
    model: PreTrainedModel, paths: Sequence[str], mask: Tensor, see: Callable[[str, Tensor], None]
) -> Iterator[None]:
    def hook(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hear(module: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0]
            # Other inputs than rows of tokens: a pooled one, DeBERTa's relative positions.
            real = x[mask] if x.ndim > 2 and x.shape[:2] == mask.shape else x
            if real.numel():
                see(path, real.reshape(-1, x.shape[-1]).float().cpu())

        return hear

    hooks = [model.get_submodule(path).register_forward_pre_hook(hook(path)) for path in paths]
    try:
        yield
    finally:
        for registered in hooks:
            registered.remove()
