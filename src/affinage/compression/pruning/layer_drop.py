"""Layers that are stepped over at random while the model trains, so that it can do without every other one."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.pruning.choice import Share
from affinage.compression.pruning.cutting import check_layers, cut_layers_
from affinage.compression.pruning.heads import EVEN
from affinage.compression.pruning.layers import Depth, depth_to_keep
from affinage.models.layout import layers_of
from affinage.models.transfer import layer_map


@compressors.register("layer-drop", source="Fan et al. 2019 (LayerDrop), arXiv:1909.11556, sections 3.1 and 3.2")
@dataclass(frozen=True)
class LayerDrop:
    """Steps over each layer with a chance while the model trains, and leaves every other one out in the end.

    A layer that is stepped over gives what it was given.
    """

    keep: Depth | None = None
    """layers that stay; None: half of them, rounded up"""
    rate: Share = 0.2
    """chance of a layer to be stepped over, for each batch"""

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = EVEN

    def prepare(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        check_layers(model, "layer-drop", called=True)
        depth_to_keep(self.keep, len(layers_of(model)))
        made = deepcopy(model)
        for layer in layers_of(made):
            layer.register_forward_hook(_SteppedOver(self.rate))
        return made

    def on_step(self, model: PreTrainedModel, step: int, total: int) -> None:
        """Chance is drawn in every pass, from torch's generator, whose state a checkpoint holds."""

    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        made: PreTrainedModel = deepcopy(model).eval()
        layers = layers_of(made)
        for layer in layers:
            for key, hook in list(layer._forward_hooks.items()):
                if isinstance(hook, _SteppedOver):
                    del layer._forward_hooks[key]
        cut_layers_(made, layer_map("spread", len(layers), depth_to_keep(self.keep, len(layers))))
        return made


@dataclass(frozen=True)
class _SteppedOver:
    rate: float

    def __call__(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        if not module.training or float(torch.rand(())) >= self.rate:
            return out
        return (args[0], *out[1:]) if isinstance(out, tuple) else args[0]
