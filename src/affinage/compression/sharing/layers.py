"""The same linear maps in several layers."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.linear_maps import in_attention
from affinage.errors import InputError
from affinage.models.layout import depth_of, layout_of
from affinage.models.modules.base import Compressed

Start = Literal["first", "middle", "last", "mean"]


@compressors.register(
    "share-layers",
    source="Lan et al. 2020 (ALBERT), arXiv:1909.11942, section 3.1; Takase & Kiyono 2021, arXiv:2104.06022",
)
@dataclass(frozen=True)
class ShareLayers:
    """Cross-layer sharing of linear maps: all, those of attention, or those of the feed-forward network.

    Layers are put into `groups`, of neighbours or in turn (`order=cycle`), and each group has one set of maps: that
    of its first, middle or last layer, or the mean of all. LayerNorms stay each layer's own. Approximate until it is
    trained on; smaller, not faster.
    """

    parts: Literal["all", "attention", "feed-forward"] = "all"
    groups: Annotated[int, Field(ge=1)] = 1
    order: Literal["neighbours", "cycle"] = "neighbours"
    start: Start = "middle"

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = Traits(
        paradigm="sharing",
        takes=frozenset({"dense", "factored", "shared", "packed-table"}),
        leaves=frozenset({"shared"}),
    )

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        made: PreTrainedModel = deepcopy(model).eval()
        layout, depth = layout_of(made.config), depth_of(made.config)
        if layout.shares_layers:
            raise InputError(f"share-layers: all layers of an '{made.config.model_type}' share their weights already")
        if self.groups >= depth:
            raise InputError(f"share-layers: {self.groups} groups of {depth} layers share nothing; at most {depth - 1}")
        maps = [
            {name: m for path in (layout.layers, *layout.more_layers) for name, m in self._maps(made, path, i).items()}
            for i in range(depth)
        ]
        for members in grouped(depth, self.groups, self.order):
            self._share_(made, [maps[i] for i in members], members)
        return made

    def _maps(self, model: PreTrainedModel, layers: str, i: int) -> dict[str, nn.Module]:
        """`layers.{}.role` -> module of layer `i`."""
        return {
            f"{layers}.{{}}.{name}": module
            for name, module in outermost_maps(model.get_submodule(f"{layers}.{i}")).items()
            if self.parts == "all" or in_attention(model, f"{layers}.{i}.{name}") == (self.parts == "attention")
        }

    def _share_(self, model: PreTrainedModel, maps: Sequence[Mapping[str, nn.Module]], members: Sequence[int]) -> None:
        for role, own in maps[0].items():
            same = [layer.get(role) for layer in maps]
            for i, other in zip(members, same, strict=True):
                if other is None or _form(other) != _form(own):
                    raise InputError(
                        f"share-layers: {role.format(members[0])} and {role.format(i)} are of unlike form or size; "
                        "share layers before other methods make them unlike"
                    )
            modules = [module for module in same if module is not None]
            kept = modules[0]
            kept.load_state_dict(start_of([module.state_dict() for module in modules], self.start))
            for i in members:
                parent, _, name = role.format(i).rpartition(".")
                setattr(model.get_submodule(parent), name, kept)


def grouped(depth: int, groups: int, order: Literal["neighbours", "cycle"]) -> list[list[int]]:
    """Which layers share: ALBERT's groups of neighbours, or every `groups`-th layer."""
    owner = [i % groups if order == "cycle" else i * groups // depth for i in range(depth)]
    return [[i for i in range(depth) if owner[i] == group] for group in range(groups)]


def outermost_maps(layer: nn.Module) -> dict[str, nn.Module]:
    """Name -> linear maps of a layer, stock and `Compressed`, without those that these are made of."""
    found = {name: m for name, m in layer.named_modules() if isinstance(m, nn.Linear | Compressed)}
    inside = {id(m) for part in found.values() if isinstance(part, Compressed) for m in part.modules() if m is not part}
    return {name: m for name, m in found.items() if id(m) not in inside}


@torch.no_grad()
def start_of(states: Sequence[Mapping[str, Tensor]], start: Start) -> dict[str, Tensor]:
    """The tensors that a group of layers starts from: one's, or the mean entry by entry (integers: the first's)."""
    if start == "mean":
        return {
            key: torch.stack([state[key] for state in states]).mean(0) if value.is_floating_point() else value
            for key, value in states[0].items()
        }
    return dict(states[{"first": 0, "middle": (len(states) - 1) // 2, "last": -1}[start]])


def _form(module: nn.Module) -> tuple[object, ...]:
    shapes = [(key, value.shape, value.dtype) for key, value in module.state_dict().items()]
    return (type(module), *shapes)
