"""Low rank where the task bears it: ranks allotted under a budget by how much the loss rises."""

import logging
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Side, Traits, compressors
from affinage.compression.decomposition.activation_svd import whitened
from affinage.compression.decomposition.low_rank import (
    FACTORED,
    Matrix,
    Share,
    candidates,
    low_rank,
    put_,
    refuse_no_gain,
)
from affinage.compression.decomposition.ranks import Ranks, cheapest
from affinage.compression.decomposition.statistics import calibration
from affinage.compression.linear_maps import OnParts, Parts, chosen_parts
from affinage.errors import InputError
from affinage.models.modules.low_rank import LowRankEmbedding, LowRankLinear

log = logging.getLogger(__name__)


@compressors.register("sensitivity-svd", source="original: measured rise of the loss; factors as of activation-svd")
@dataclass(frozen=True)
class SensitivitySVD(OnParts):
    """Ranks allotted by sensitivity: each map alone is tried at several ranks, and the loss on calibration text tells.

    Of `levels` ranks spread over those that save, or whole, each map gets the one with which the measured rises add up
    to least while the share `keep` of the parameters is left. Costs maps × levels passes over the text.
    """

    keep: Share = 0.5
    levels: Annotated[int, Field(ge=1, le=32)] = 4
    parts: Parts = "all"

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    traits: ClassVar[Traits] = replace(FACTORED, leaves=frozenset({"factored", "uneven"}))

    @property
    def uses_up(self) -> frozenset[Side]:
        """Nothing for certain: what the loss feels most stays whole."""
        return frozenset()

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        made: PreTrainedModel = deepcopy(model).eval()
        maps, table = chosen_parts(made, self.parts, method="sensitivity-svd")
        matrices = whitened(made, maps, table, resources, method="sensitivity-svd")
        found = [matrix.found for matrix in matrices]
        sizes = candidates(matrices, found, relative=True)
        options: list[Ranks] = [
            [*sorted({max(1, m.most * (k + 1) // (self.levels + 1)) for k in range(self.levels)}), None]
            if m.most
            else [None]
            for m in sizes
        ]
        before = _loss(made, resources)
        losses = []
        for matrix, spectrum, ranks in zip(matrices, found, options, strict=True):
            rises = [
                _loss_with(made, matrix, low_rank(matrix, spectrum, rank), resources) - before
                for rank in ranks
                if rank is not None
            ]
            log.info("%s: the loss rises by %s", matrix.path, ", ".join(f"{rise:.4f}" for rise in rises))
            losses.append([max(0.0, rise) for rise in rises] + [0.0])
        costs = [[m.cost(rank) for rank in ranks] for m, ranks in zip(sizes, options, strict=True)]
        picks = cheapest(costs, losses, int(self.keep * sum(m.size for m in sizes)))
        chosen = [ranks[pick] for ranks, pick in zip(options, picks, strict=True)]
        refuse_no_gain(chosen, matrices, "sensitivity-svd")
        for matrix, spectrum, rank in zip(matrices, found, chosen, strict=True):
            if rank is not None:
                put_(made, matrix, spectrum, rank)
        return made


@torch.no_grad()
def _loss(model: PreTrainedModel, resources: Resources) -> float:
    """Mean over the calibration batches."""
    batches = calibration(resources, "sensitivity-svd")
    if resources.loss is None:
        raise InputError("sensitivity-svd needs a task's loss: give --task and --data")
    return sum(float(resources.loss(model, batch.to(model.device))) for batch in batches) / len(batches)


@torch.no_grad()
def _loss_with(
    model: PreTrainedModel, matrix: Matrix, small: LowRankLinear | LowRankEmbedding, resources: Resources
) -> float:
    """The loss as if `small` stood in the matrix's place; its tensors are written over and restored."""
    module = matrix.module
    tensors = [module.weight] + ([module.bias] if isinstance(module, nn.Linear) and module.bias is not None else [])
    kept = [tensor.clone() for tensor in tensors]
    tensors[0].copy_(small.dense())
    if isinstance(small, LowRankLinear) and small.bias is not None:
        tensors[1].copy_(small.bias)
    try:
        return _loss(model, resources)
    finally:
        for tensor, old in zip(tensors, kept, strict=True):
            tensor.copy_(old)
