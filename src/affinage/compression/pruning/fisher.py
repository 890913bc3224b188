"""Which heads and neurons stay under a budget of work, by the Fisher information of their gates.

Kwon et al. 2022 (A Fast Post-Training Pruning Framework for Transformers), arXiv:2204.09656. g_n is the derivative of
example n's loss by the gates of a layer; zeroing the gates m changes the loss by about (1 - m)^T F (1 - m) / 2 with
F = E_n[g_n g_n^T].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from affinage.compression.pruning.choice import best_of_all
from affinage.compression.pruning.cutting import head_counts, head_size, neuron_counts
from affinage.models.layout import layers_of, layout_of

TOKENS = 128
"""length of the text whose work is counted"""


@dataclass(frozen=True)
class Work:
    """Multiply-adds for a token of a text of `TOKENS`: of one head, of one neuron, of all layers."""

    head: int
    neuron: int
    whole: int
    least: int
    """where every layer keeps one head and one neuron"""


@dataclass(frozen=True)
class Kept:
    """Indices that stay in each layer, rising."""

    heads: list[Tensor]
    neurons: list[Tensor]


def work_of(model: PreTrainedModel) -> Work:
    """A head maps H to D three times and back, compares and mixes; a neuron has H inputs, or 2 H with a gate, and H
    outputs.
    """
    size, width = head_size(model, layers_of(model)[0]), int(model.config.hidden_size)
    head, neuron = size * (4 * width + 2 * TOKENS), (2 + layout_of(model.config).gated) * width
    heads, neurons = head_counts(model), neuron_counts(model)
    return Work(head, neuron, sum(heads) * head + sum(neurons) * neuron, len(heads) * (head + neuron))


def search(heads: Sequence[Tensor], neurons: Sequence[Tensor], work: Work, budget: float) -> Kept:
    """The masks of Algorithm 1: of all numbers of heads, with as many neurons as the rest of the budget pays for, the
    one that keeps most diagonal Fisher information. `heads`: L x (A,), `neurons`: L x (F,), both E_n[g_n**2].

    Raises: ValueError where the budget is below `work.least`.
    """
    depth = len(heads)
    kept_heads, kept_neurons = _kept(heads), _kept(neurons)
    found: tuple[float, int, int] | None = None
    for count in range(depth, len(kept_heads)):
        paid = min(int((budget - count * work.head) / work.neuron + 1e-9), len(kept_neurons) - 1)
        if paid < depth:
            break
        value = float(kept_heads[count] + kept_neurons[paid])
        if found is None or value > found[0]:
            found = (value, count, paid)
    if found is None:
        raise ValueError(f"a budget of {budget:.0f} multiply-adds is below the least, {work.least}")
    return Kept(best_of_all(heads, found[1]), best_of_all(neurons, found[2]))


def _kept(scores: Sequence[Tensor]) -> Tensor:
    """(n + 1,): the sum of the scores that `best_of_all` keeps, for every count; of the first L each layer's best."""
    layers = [layer.double().sort(descending=True).values for layer in scores]
    firsts = torch.stack([layer[0] for layer in layers])
    rest = torch.cat([layer[1:] for layer in layers]).sort(descending=True).values
    return torch.cat([torch.zeros(1, dtype=torch.float64), firsts, rest]).cumsum(0)


def rearranged(gradients: Tensor, kept: Tensor) -> Tensor:
    """As many indices as `kept` (k,), exchanged so that the removed gates' joint information falls (section 4.2).

    `gradients`: (N, n) of one layer. With r the removed ones' indicator r^T F r is lowered one exchange at a time: each
    gate that stays, the least important first, joins the removed, and of them the one returns that lowers it most.
    """
    fisher = gradients.double().t() @ gradients.double()
    own = fisher.diagonal()
    gone = torch.ones(len(own), dtype=torch.bool)
    gone[kept] = False
    if not gone.any():
        return kept
    with_gone = fisher[:, gone].sum(1)
    for gate in kept[own[kept].sort(stable=True).indices].tolist():
        gone[gate] = True
        with_gone = with_gone + fisher[:, gate]
        saved = torch.where(gone, 2 * with_gone - own, -torch.inf)
        back = gate if saved[gate] >= saved.max() else int(saved.argmax())
        gone[back] = False
        with_gone = with_gone - fisher[:, back]
    return (~gone).nonzero()[:, 0]
