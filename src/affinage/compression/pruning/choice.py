"""Which heads, neurons or weights stay, by their scores: so many of a layer, or of all layers together."""

from collections.abc import Sequence
from math import floor
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
"""of what there is, between 0 and 1, both left out"""


def removed(count: int, share: float) -> int:
    """⌊share * count⌋, not one less where the product is a whole number that floats miss: 0.29 of 100 is 29."""
    return floor(share * count + 1e-9)


def best(scores: Tensor, count: int) -> Tensor:
    """(count,) indices of the largest scores (n,), in rising order; of equal ones the first."""
    return scores.sort(descending=True, stable=True).indices[:count].sort().values


def best_of_all(scores: Sequence[Tensor], count: int) -> list[Tensor]:
    """For each layer, of scores L x (n,), the indices that stay when `count` of all layers' do: the largest.

    Every layer keeps its best one. Raises: ValueError where `count` is less than there are layers.
    """
    if count < len(scores):
        raise ValueError(f"{count} cannot be one of each of {len(scores)} layers")
    raised = [layer.double().clone() for layer in scores]
    for layer in raised:
        layer[layer.argmax()] = torch.inf
    order = torch.cat(raised).sort(descending=True, stable=True).indices[:count]
    taken = torch.zeros(sum(map(len, raised)), dtype=torch.bool)
    taken[order] = True
    return [part.nonzero()[:, 0] for part in torch.split(taken, [len(layer) for layer in raised])]
