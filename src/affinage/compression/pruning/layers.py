"""Whole layers that are left out: every other, by search on the valid part, or by what each adds to its input."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.pruning.cutting import check_layers, cut_layers_, first_has_to_stay
from affinage.compression.pruning.heads import EVEN
from affinage.errors import InputError
from affinage.models.encoder import forward_masked_lm
from affinage.models.layout import layers_of, layout_of
from affinage.models.transfer import layer_map
from affinage.signals import Batch

log = logging.getLogger(__name__)

Depth = Annotated[int, Field(ge=1)]


@compressors.register("drop-layers", source="Fan et al. 2019 (LayerDrop), arXiv:1909.11556, section 3.2, every other")
@dataclass(frozen=True)
class DropLayers:
    """Leaves layers out at even distances: of 12, 6 keep every other. The first and the last stay.

    `layers`, given, names those that stay, from 0, and `keep` is not looked at.
    """

    keep: Depth | None = None
    """layers that stay; None: half of them, rounded up"""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = EVEN

    def __post_init__(self) -> None:
        """Raises: InputError where no layer is named, or one twice."""
        if self.layers is not None and not 0 < len(set(self.layers)) == len(self.layers):
            raise InputError(f"drop-layers: layers={list(self.layers)} is to name layers that stay, from 0, each once")

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        check_layers(model, "drop-layers")
        depth = len(layers_of(model))
        if self.layers is None:
            return without_others(model, layer_map("spread", depth, depth_to_keep(self.keep, depth)))
        chosen = sorted(self.layers)
        if len(chosen) >= depth or chosen[-1] >= depth:
            raise InputError(f"layers={list(self.layers)} is to name some of the layers 0 to {depth - 1}, each once")
        return without_others(model, chosen)


@compressors.register("search-layers", source="Fan et al. 2019 (LayerDrop), arXiv:1909.11556, section 3.2, on valid")
@dataclass(frozen=True)
class SearchLayers:
    """Leaves out, one after another, the layer whose absence costs the least score on the valid part.

    Fan et al. try every combination; this tries each layer, takes the best out, and begins again: of L layers
    L + (L - 1) + … models are scored. Of equal ones the last goes.
    """

    keep: Depth | None = None
    """layers that stay; None: half of them, rounded up"""

    needs: ClassVar[frozenset[str]] = frozenset({"score"})
    traits: ClassVar[Traits] = EVEN

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        check_layers(model, "search-layers")
        left = list(range(len(layers_of(model))))
        count = depth_to_keep(self.keep, len(left))
        score = resources.score
        if score is None:
            raise InputError("search-layers compares scores on a valid part: give --task and --data")
        stays = [0] if first_has_to_stay(model) else []
        while len(left) > count:
            tried = {i: score(without_others(model, [j for j in left if j != i])) for i in left if i not in stays}
            gone = max(reversed(tried), key=lambda i: tried[i])
            log.info("search-layers: without layer %d the score is %.4f", gone, tried[gone])
            left.remove(gone)
        return without_others(model, left)


@compressors.register("drop-layers-by-contribution", source="Sajjad et al. 2020, arXiv:2004.03844, section 3.1.4")
@dataclass(frozen=True)
class DropLayersByContribution:
    """Leaves out the layers that change their input least: mean cosine of a token's state before and after.

    Sajjad et al. compare the states of the first token; here it is every real token's.
    """

    keep: Depth | None = None
    """layers that stay; None: half of them, rounded up"""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})
    traits: ClassVar[Traits] = EVEN

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        check_layers(model, "drop-layers-by-contribution")
        depth = len(layers_of(model))
        count = depth_to_keep(self.keep, depth)
        alike = similarities(model, resources)
        if first_has_to_stay(model):
            alike[0] = -torch.inf
        order = alike.sort(stable=True).indices
        return without_others(model, sorted(order[:count].tolist()))


def similarities(model: PreTrainedModel, resources: Resources) -> Tensor:
    """(L,): mean over real tokens of the cosine between a layer's input and its output.

    Raises: InputError where there is nothing to calibrate with.
    """
    if not resources.calibration:
        raise InputError("this method looks at hidden states: it needs texts; give --task and --data")
    still = deepcopy(model).eval()
    sums, tokens = torch.zeros(len(layers_of(still)), dtype=torch.float64), 0
    for batch in resources.calibration:
        passed = _through_layers(still, batch)
        alike = [cosine_similarity(given[batch.mask], out[batch.mask], dim=-1) for given, out in passed]
        sums += torch.stack([layer.double().sum().cpu() for layer in alike])
        tokens += int(batch.mask.sum())
    return sums / max(tokens, 1)


@torch.no_grad()
def _through_layers(model: PreTrainedModel, batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """Hidden states (B, T, H) before and after each layer, without a norm that follows the last."""
    if layout_of(model.config).more_layers:  # no module is called as a layer
        states = forward_masked_lm(model, batch, frozenset({"hidden_states"})).hidden_states
        assert states is not None
        return list(pairwise(states))
    found: list[tuple[Tensor, Tensor]] = []

    def hear(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        found.append((args[0], out[0] if isinstance(out, tuple) else out))

    with ExitStack() as hooks:
        for layer in layers_of(model):
            hooks.callback(layer.register_forward_hook(hear).remove)
        forward_masked_lm(model, batch, frozenset())
    return found


def without_others(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """A copy of the model with these layers only, in eval mode."""
    pruned: PreTrainedModel = deepcopy(model).eval()
    cut_layers_(pruned, kept)
    return pruned


def depth_to_keep(keep: int | None, depth: int) -> int:
    """How many of `depth` layers stay. Raises: InputError where that leaves none out."""
    count = (depth + 1) // 2 if keep is None else keep
    if depth == 1:
        raise InputError("the model has one layer, which stays: leave this step out")
    if not 1 <= count < depth:
        raise InputError(f"keep={count} of {depth} layers: give a number from 1 to {depth - 1}")
    return count
