"""Single weights that go because the loss hardly feels it, to second order: optimal brain damage."""

from copy import deepcopy
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.pruning.choice import Share
from affinage.compression.pruning.sparsity import SPARSE, made_sparse, matrices, smallest_of_all
from affinage.errors import InputError
from affinage.signals import Batch


@compressors.register(
    "prune-obd", source="LeCun et al. 1990 (Optimal Brain Damage), equation 5, with Fisher information"
)
@dataclass(frozen=True)
class PruneOBD:
    """Sets the weights to zero whose saliency w^2 F / 2 is smallest, of all matrices together. Smaller, not faster.

    F = E_n[(dLoss_n / dw)^2], the diagonal of the empirical Fisher information, stands for that of the Hessian.
    """

    sparsity: Share = 0.5
    """share of the weights that becomes zero: ⌊sparsity * n⌋ of n"""
    embeddings: bool = False
    """whether the word embeddings are pruned too"""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "gradients"})
    traits: ClassVar[Traits] = SPARSE

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        found = matrices(model, embeddings=self.embeddings)
        fisher = fisher_of(model, list(found), resources)
        saliency = {path: module.weight.detach().square() * fisher[path] / 2 for path, module in found.items()}
        return made_sparse(model, smallest_of_all(saliency, self.sparsity))


def fisher_of(model: PreTrainedModel, paths: list[str], resources: Resources) -> dict[str, Tensor]:
    """path -> E_n[(dLoss_n / dw)^2] of the weight there, over single examples n.

    Raises: InputError where there is nothing to calibrate with.
    """
    if not resources.calibration or resources.loss is None:
        raise InputError("prune-obd weighs weights by gradients: it needs examples with labels; give --task and --data")
    still = deepcopy(model).eval()
    weights: list[Tensor] = [still.get_submodule(path).weight for path in paths]  # type: ignore[misc]
    for weight in weights:
        weight.requires_grad_(True)
    sums, count = [torch.zeros_like(weight) for weight in weights], 0
    for batch in resources.calibration:
        for i in range(batch.input_ids.shape[0]):
            with torch.enable_grad():
                loss = resources.loss(still, row_of(batch, i))
            if not loss.requires_grad:
                continue  # a row without a label
            for total, gradient in zip(sums, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                if gradient is not None:
                    total += gradient.square()
            count += 1
    return {path: total / max(count, 1) for path, total in zip(paths, sums, strict=True)}


def row_of(batch: Batch, i: int) -> Batch:
    """The batch of row i alone."""
    parts: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: part[i : i + 1] for name, part in parts.items() if part is not None})
