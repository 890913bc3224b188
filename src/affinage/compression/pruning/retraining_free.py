"""Heads and neurons together by Fisher masks, without training: to a share of the work, or to a latency."""

import logging
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.pruning.choice import Share
from affinage.compression.pruning.cutting import check_cuttable, cut_heads_, cut_neurons_
from affinage.compression.pruning.fisher import Kept, rearranged, search, work_of
from affinage.compression.pruning.gates import Sensitivity, sensitivity
from affinage.compression.pruning.heads import UNEVEN
from affinage.compression.pruning.tuning import tune_
from affinage.errors import InputError

log = logging.getLogger(__name__)

_SOURCE = "Kwon et al. 2022, arXiv:2204.09656, sections 4.1 to 4.3"
_STEPS = 7
"""halvings of the span in which the work for a latency is looked for"""


@compressors.register("prune-fisher", source=_SOURCE)
@dataclass(frozen=True)
class PruneFisher:
    """Takes out heads and neurons together, by the Fisher information of their gates; one of each a layer stays.

    How many of each follows from what they cost (multiply-adds at 128 tokens) and what they hold. `rearrange`: masks
    are exchanged where parts stand for each other. `tune`: what stays is scaled to make up for what goes. No training.
    """

    keep: Share = 0.5
    """share of the layers' multiply-adds that stays"""
    rearrange: bool = True
    tune: bool = True

    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "gradients"})
    traits: ClassVar[Traits] = UNEVEN

    def quick(self) -> "PruneFisher":
        """Without exchanges and factors."""
        return replace(self, rearrange=False, tune=False)

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        check_cuttable(model, "prune-fisher", heads=True)
        work = work_of(model)
        if self.keep * work.whole < work.least:
            raise InputError(
                f"keep={self.keep} of the work: each layer keeps at least one head and one neuron, which makes "
                f"keep={work.least / work.whole:.3g} the least"
            )
        whole = deepcopy(model).eval()
        found = sensitivity(whole, resources, neurons=True)
        return _pruned(whole, found, self.keep * work.whole, resources, self.rearrange, self.tune)


@compressors.register("prune-to-latency", source=_SOURCE + "; the budget found by measuring")
@dataclass(frozen=True)
class PruneToLatency:
    """As `prune-fisher`, with as much work left as meets a latency measured on this machine.

    The work is found by halving: pruned models are measured on the way.
    """

    latency: Share = 0.5
    """of the model's own: 0.5 is twice as fast"""
    rearrange: bool = True
    tune: bool = True

    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "gradients", "latency"})
    traits: ClassVar[Traits] = UNEVEN

    def quick(self) -> "PruneToLatency":
        """Without exchanges and factors."""
        return replace(self, rearrange=False, tune=False)

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        check_cuttable(model, "prune-to-latency", heads=True)
        measure = resources.latency
        if measure is None:
            raise InputError("prune-to-latency measures models on the way and was given nothing to measure with")
        whole, work = deepcopy(model).eval(), work_of(model)
        found = sensitivity(whole, resources, neurons=True)

        def took(budget: float) -> float:
            return measure(_pruned(whole, found, budget, resources, rearrange=False, tune=False), whole)

        low, high = float(work.least), float(work.whole)
        if (fastest := took(low)) > self.latency:
            raise InputError(
                f"latency={self.latency}: each layer keeps at least one head and one neuron, and then a text still "
                f"takes {fastest:.2f} of what it took; leave layers out too (drop-layers), or ask for less"
            )
        for _ in range(_STEPS):
            middle = (low + high) / 2
            now = took(middle)
            log.info("prune-to-latency: %.2f of the work takes %.2f of the time", middle / work.whole, now)
            low, high = (middle, high) if now <= self.latency else (low, middle)
        return _pruned(whole, found, low, resources, self.rearrange, self.tune)


def _pruned(
    whole: PreTrainedModel, found: Sensitivity, budget: float, resources: Resources, rearrange: bool, tune: bool
) -> PreTrainedModel:
    kept = search(_fisher(found.heads), _fisher(found.neurons), work_of(whole), budget)
    if rearrange:
        kept = Kept(_exchanged(found.heads, kept.heads), _exchanged(found.neurons, kept.neurons))
    pruned = deepcopy(whole)
    cut_heads_(pruned, kept.heads)
    cut_neurons_(pruned, kept.neurons)
    if tune and resources.calibration:
        tune_(pruned, whole, resources.calibration)
    return pruned


def _fisher(gradients: tuple[Tensor, ...]) -> list[Tensor]:
    """The diagonal, E_n[g_n**2], of each layer."""
    return [layer.square().mean(0) for layer in gradients]


def _exchanged(gradients: tuple[Tensor, ...], kept: list[Tensor]) -> list[Tensor]:
    return [rearranged(layer, stays) for layer, stays in zip(gradients, kept, strict=True)]
