"""Bits where the loss needs them: each linear map's chosen by its Hessian sensitivity, under a mean."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.pruning.sparsity import with_zeros
from affinage.compression.quantization.calibration import enough
from affinage.compression.quantization.curvature import top_eigenvalues
from affinage.compression.quantization.places import LEAVES, TAKES, FewBits, quantized
from affinage.compression.quantization.weight_only import check_group, group_embedding, group_linear
from affinage.errors import InputError
from affinage.models.modules.groups import group_matrix


@compressors.register(
    "mixed-bits", source="Shen et al. 2020 (Q-BERT), arXiv:1909.05840, eq. 5; Dong et al. 2020 (HAWQ-V2)"
)
@dataclass(frozen=True, kw_only=True)
class MixedBits(FewBits):
    """2 to 8 bits for each map by Hessian sensitivity. Smaller; faster in ONNX Runtime where activations have 8."""

    bits: float = 4.0
    """mean over the weights of the linear maps, scales aside"""
    choices: tuple[int, ...] = (2, 3, 4, 8)
    """bits that a map may get"""
    embedding_bits: int = 8
    """of the tables, which Q-BERT finds to need more"""
    group: int = 64
    """weights of a row that share a scale and a zero point: a power of two, 16 at least"""
    batches: int = 2
    """calibration batches whose Hessians are looked at: about ten passes forth and back for each map and batch"""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "gradients"})
    traits: ClassVar[Traits] = Traits("quantization", TAKES, LEAVES, trains=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_group(self.group)
        if not (self.encoder or self.heads):
            raise ValueError("encoder and heads are both switched off: there is no linear map to choose bits for")
        if self.batches < 1:
            raise ValueError(f"batches is at least 1, not {self.batches}")
        if not self.choices or not all(2 <= bits <= 8 for bits in (*self.choices, self.embedding_bits)):
            raise ValueError(f"choices and embedding_bits are 2 to 8, not {(*self.choices, self.embedding_bits)}")
        if not min(self.choices) <= self.bits <= max(self.choices):
            raise ValueError(f"a mean of {self.bits} bits cannot be reached with choices of {self.choices}")

    def quick(self) -> "MixedBits":
        """With nothing to choose from."""
        return replace(self, choices=self.choices[:1], bits=float(self.choices[0]))

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        model = with_zeros(model)  # derivatives are taken by a weight that is a parameter
        bits = self.allotted(model, resources)
        return quantized(
            model,
            self,
            lambda path, linear: group_linear(linear, bits[path], self.group, self.activations),
            lambda _, table: group_embedding(table, self.embedding_bits, self.group),
            method="mixed-bits",
        )

    def allotted(self, model: PreTrainedModel, resources: Resources) -> dict[str, int]:
        """path of each linear map -> its bits.

        What b bits cost map i is Ω_i ‖W_i - Q_b(W_i)‖² / 2, the second-order term of the loss (HAWQ-V2) with Q-BERT's Ω
        = |mean λ| + std λ over batches, λ the largest eigenvalue of the Hessian in W_i.
        """
        paths = self.linears(model)
        if not paths:
            raise InputError(
                "mixed-bits: no linear map that is still whole: they are quantized already; leave the step out"
            )
        weights = [model.get_parameter(f"{path}.weight") for path in paths]
        batches = enough(resources.calibration)[: self.batches]
        choices = sorted(set(self.choices))
        if len(choices) == 1:
            return dict.fromkeys(paths, choices[0])
        found = top_eigenvalues(model, weights, batches, resources.loss, seed=resources.seed)
        omega = found.mean(0).abs() + found.std(0, correction=0)
        costs = [
            [float(o) * self.error(weight, bits) / 2 for bits in choices]
            for o, weight in zip(omega, weights, strict=True)
        ]
        chosen = allot(costs, [weight.numel() for weight in weights], choices, self.bits)
        return dict(zip(paths, chosen, strict=True))

    def error(self, weight: nn.Parameter, bits: int) -> float:
        """‖W - Q(W)‖²."""
        return float((weight.detach().float() - group_matrix(weight, bits, self.group).read()).square().sum())


def allot(costs: Sequence[Sequence[float]], sizes: Sequence[int], choices: Sequence[int], mean: float) -> list[int]:
    """Bits of each map, ascending `choices`, of small total cost and at most `mean` bits a weight.

    Everything starts at the fewest bits; then, again and again, the step up (to any larger choice) that saves most cost
    for each bit it spends is taken, as long as it fits: optimal where costs are convex in the bits and steps are small.
    """
    at = [0] * len(sizes)
    left = mean * sum(sizes) - choices[0] * sum(sizes)
    while True:
        steps = [
            ((costs[i][at[i]] - costs[i][k]) / ((choices[k] - choices[at[i]]) * sizes[i]), -i, k)
            for i in range(len(sizes))
            for k in range(at[i] + 1, len(choices))
            if (choices[k] - choices[at[i]]) * sizes[i] <= left + 1e-6
        ]
        if not steps:
            return [choices[k] for k in at]
        _, minus_i, k = max(steps)
        left -= (choices[k] - choices[at[-minus_i]]) * sizes[-minus_i]
        at[-minus_i] = k
