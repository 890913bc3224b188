"""Feed-forward neurons that the loss can do without: of all layers together, or as many of each."""

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.pruning.choice import Share, best, best_of_all, removed
from affinage.compression.pruning.cutting import check_cuttable, cut_neurons_, linear_of, neuron_counts
from affinage.compression.pruning.gates import sensitivity
from affinage.compression.pruning.heads import EVEN, UNEVEN, importance, kept_of_all
from affinage.models.layout import layers_of


@compressors.register("prune-neurons", source="Molchanov et al. 2017, arXiv:1611.06440, equation 8, on gates")
@dataclass(frozen=True)
class PruneNeurons:
    """Takes out the feed-forward neurons whose gates the loss feels least, over all layers; one of each layer stays.

    A neuron's importance is E_x |dL(x) / dgate|: how much the loss changes, to first order, when it is zeroed. Layers
    keep unlike widths, so stock transformers cannot load the result.
    """

    keep: Share = 0.5
    """share of all layers' neurons that stays"""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "gradients"})
    traits: ClassVar[Traits] = UNEVEN

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        check_cuttable(model, "prune-neurons")
        count = kept_of_all(neuron_counts(model), self.keep, "neurons")
        pruned: PreTrainedModel = deepcopy(model).eval()
        scores = importance(sensitivity(pruned, resources, neurons=True).neurons, normalize=False)
        cut_neurons_(pruned, best_of_all(scores, count))
        return pruned


@compressors.register("prune-neurons-evenly", source="Molchanov et al. 2017, arXiv:1611.06440, equation 8, on gates")
@dataclass(frozen=True)
class PruneNeuronsEvenly:
    """As `prune-neurons`, the same number in every layer: stock transformers load the result, FlauBERT's apart."""

    keep: Share = 0.5
    """share of each layer's neurons that stays; at least one does"""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "gradients"})
    traits: ClassVar[Traits] = EVEN

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        check_cuttable(model, "prune-neurons-evenly")
        pruned: PreTrainedModel = deepcopy(model).eval()
        scores = importance(sensitivity(pruned, resources, neurons=True).neurons, normalize=False)
        return _cut_evenly_(pruned, scores, self.keep)


@compressors.register("prune-neurons-onorm", source="He et al. 2014 (Reshaping deep neural network), onorm")
@dataclass(frozen=True)
class PruneNeuronsONorm:
    """Takes out of each layer the neurons with the smallest outgoing weights, mean |w|: without data.

    As many of every layer: stock transformers load the result, FlauBERT's apart.
    """

    keep: Share = 0.5
    """share of each layer's neurons that stays; at least one does"""

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = EVEN

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        check_cuttable(model, "prune-neurons-onorm")
        pruned: PreTrainedModel = deepcopy(model).eval()
        scores = [linear_of(pruned, layer, "output").weight.detach().abs().mean(0) for layer in layers_of(pruned)]
        return _cut_evenly_(pruned, scores, self.keep)


def _cut_evenly_(model: PreTrainedModel, scores: list[Tensor], keep: float) -> PreTrainedModel:
    cut_neurons_(model, [best(layer, len(layer) - removed(len(layer), 1 - keep)) for layer in scores])
    return model
