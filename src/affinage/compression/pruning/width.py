"""A narrower model: hidden units, and heads with them, so that stock transformers load it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.pruning.choice import Share, best
from affinage.compression.pruning.cutting import check_cuttable, head_counts, head_size
from affinage.compression.pruning.gates import gated
from affinage.errors import InputError
from affinage.models.layout import layers_of, layout_of, widths_of


@compressors.register("prune-width", source="Xia et al. 2022 (CoFi), arXiv:2204.00408, hidden masks; by gradients")
@dataclass(frozen=True)
class PruneWidth:
    """Cuts hidden states to the units whose gates the loss feels most, and every layer's heads to as large a share.

    A unit's gate is one for all places: the input of every layer, the output of its attention and the last states.
    Heads keep their size, so that the width is a number of heads times it and stock transformers load the result.
    LayerNorm then takes mean and variance of fewer units: the start is approximate, to be healed by training.
    """

    keep: Share = 0.5
    """share of the heads, and with them of the width; rounded to whole heads"""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "gradients"})
    traits: ClassVar[Traits] = Traits("pruning", takes=frozenset({"dense"}))

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        check_cuttable(model, "prune-width", whole=True)
        before = widths_of(model.config)
        count = before["num_attention_heads"]
        heads = max(1, round(self.keep * count))
        width = heads * (before["hidden_size"] // count)
        if heads == count:
            raise InputError(f"keep={self.keep} of {count} heads leaves nothing to cut: the width goes by whole heads")
        config = _narrower(model.config, heads, width)
        if not _is_stock(model):
            raise InputError("prune-width comes first: it needs layers of one shape, as the model's config says")
        units, chosen = _choice(deepcopy(model).eval(), resources, width, heads)
        with torch.random.fork_rng(devices=[]):
            pruned: PreTrainedModel = type(model)(config).eval()
        _fill_(pruned, model, units, chosen)
        return pruned


def _narrower(config: PretrainedConfig, heads: int, width: int) -> PretrainedConfig:
    """Raises: InputError where ELECTRA's narrower embeddings would become as wide as its layers."""
    narrow = deepcopy(config)
    embedding = getattr(config, "embedding_size", None)
    if embedding == width:
        raise InputError(
            f"a width of {width} is that of the embeddings of this {config.model_type}, which lose their map to the "
            "layers: keep another share"
        )
    for name in ("embedding_size", "pooler_hidden_size"):
        if getattr(config, name, None) == config.hidden_size:
            setattr(narrow, name, width)
    narrow.hidden_size, narrow.num_attention_heads = width, heads
    return narrow


def _is_stock(model: PreTrainedModel) -> bool:
    with torch.device("meta"):
        stock = type(model)(model.config).state_dict()
    return {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in stock.items()
    }


def _choice(model: PreTrainedModel, resources: Resources, width: int, heads: int) -> tuple[Tensor, list[Tensor]]:
    """Hidden units (h,) and each layer's heads L x (a,) with the largest E_n |dLoss_n / dgate|, in rising order."""
    if not resources.calibration or resources.loss is None:
        raise InputError("prune-width weighs units by gradients: it needs examples with labels; give --task and --data")
    counts = [int(model.config.hidden_size), *head_counts(model)]
    scores = [torch.zeros(count) for count in counts]
    for batch in resources.calibration:
        rows, device = batch.input_ids.shape[0], batch.input_ids.device
        gates = [torch.ones(rows, count, device=device, requires_grad=True) for count in counts]
        with torch.enable_grad(), _hidden_gated(model, gates[0]), gated(model, heads=gates[1:]):
            loss = resources.loss(model, batch)
        for score, gradient in zip(scores, torch.autograd.grad(loss, gates), strict=True):
            score += (gradient * rows).abs().sum(0).cpu()
    return best(scores[0], width), [best(score, heads) for score in scores[1:]]


@contextmanager
def _hidden_gated(model: PreTrainedModel, gate: Tensor) -> Iterator[None]:
    """While it lasts hidden states (B, T, H) are multiplied by `gate` (B, H) wherever a layer reads or writes them."""
    layers, norm = layers_of(model), layout_of(model.config).attention_norm

    def read(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0] * gate[:, None], *args[1:])

    def written(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return out * gate[:, None]

    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_pre_hook(read).remove)
            hooks.callback(layer.get_submodule(norm).register_forward_hook(written).remove)
        hooks.callback(layers[-1].register_forward_hook(written).remove)
        yield


@torch.no_grad()
def _fill_(narrow: PreTrainedModel, model: PreTrainedModel, units: Tensor, heads: list[Tensor]) -> None:
    """Every tensor of the wider model, cut where its shape differs: to heads in attention, elsewhere to `units`."""
    layout, wide = layout_of(model.config), model.state_dict()
    cuts = {}
    for i, layer in enumerate(layers_of(model)):
        size = head_size(model, layer)
        rows = (heads[i][:, None] * size + torch.arange(size)).flatten()
        for part in (layout.query, layout.key, layout.value):
            cuts[f"{layout.layers}.{i}.{part}.weight", 0] = cuts[f"{layout.layers}.{i}.{part}.bias", 0] = rows
        cuts[f"{layout.layers}.{i}.{layout.attention_output}.weight", 1] = rows
    for name, value in narrow.state_dict().items():
        cut = wide[name]
        for dim, (old, new) in enumerate(zip(cut.shape, value.shape, strict=True)):
            if old != new:
                cut = cut.index_select(dim, cuts.get((name, dim), units))
        value.copy_(cut)
