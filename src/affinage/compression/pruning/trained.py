"""Weights that go little by little while the model trains: by magnitude, or by where training moves them."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.pruning.choice import Share
from affinage.compression.pruning.sparsity import SPARSE, made_sparse, matrices, smallest_of_all
from affinage.errors import InputError
from affinage.models.modules.masked import MaskedLinear, ScoredLinear
from affinage.models.replacing import replace_module_

Part = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def cubic(step: int, total: int, *, start: float, end: float) -> float:
    """1 - (1 - p)^3 with p the way from `start` to `end`, shares of `total` steps: 0 before, 1 after.

    Zhu & Gupta 2017, arXiv:1710.01878, equation 1, from a sparsity of 0 to 1.
    """
    first, last = start * total, end * total
    way = 1.0 if step >= last else max(0.0, (step - first) / (last - first))
    return 1 - (1 - way) ** 3


@dataclass(frozen=True)
class _Gradual:
    sparsity: Share = 0.5
    """share of the weights that is zero in the end: ⌊sparsity * n⌋ of n"""
    start: Part = 0.0
    """share of the steps before the first weight goes"""
    end: Part = 0.7
    """share of the steps after which none goes any more, and what stays settles"""
    every: Annotated[int, Field(ge=1)] = 1
    """steps between two masks"""

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = SPARSE

    def __post_init__(self) -> None:
        """Raises: InputError where the last weight would go before the first."""
        if self.start >= self.end:
            raise InputError(
                f"gradual pruning: start={self.start} is to come before end={self.end}: both are shares of the steps"
            )

    def masked(self, linear: nn.Linear) -> MaskedLinear:
        """What stands in the place of a map while it trains, empty."""
        return MaskedLinear(linear.in_features, linear.out_features, linear.bias is not None)

    def importance(self, module: MaskedLinear) -> Tensor:
        """(out, in): weights with less go first."""
        raise NotImplementedError

    def prepare(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        found = matrices(model, embeddings=False)
        made = deepcopy(model)
        for path in found:
            linear = made.get_submodule(path)
            assert isinstance(linear, nn.Linear)
            masked = self.masked(linear)
            masked.load_state_dict(linear.state_dict(), strict=False)
            replace_module_(made, path, masked.to(linear.weight.device))
        return made

    @torch.no_grad()
    def on_step(self, model: PreTrainedModel, step: int, total: int) -> None:
        share = self.sparsity * cubic(step, total, start=self.start, end=self.end)
        if step % self.every == 0:
            modules = masked_modules(model)
            scores = {path: self.importance(module) for path, module in modules.items()}
            put_masks_(modules, smallest_of_all(scores, share))

    @torch.no_grad()
    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        scores = {path: self.importance(module) for path, module in masked_modules(model).items()}
        return finished(model, smallest_of_all(scores, self.sparsity))


@compressors.register("prune-gradual", source="Zhu & Gupta 2017, arXiv:1710.01878, equation 1")
@dataclass(frozen=True)
class PruneGradual(_Gradual):
    """Sets the smallest weights to zero while the model trains, ever more of them. Smaller, not faster.

    The sparsity at a share p of the way is s (1 - (1 - p)^3): most go early, when the model can still make up for it.
    """

    def importance(self, module: MaskedLinear) -> Tensor:
        return module.weight.detach().abs()


@dataclass(frozen=True)
class _Movement(_Gradual):
    score_speed: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300.0
    """how many times faster scores learn than weights; the paper's rates are 1e-2 and 3e-5"""

    def masked(self, linear: nn.Linear) -> ScoredLinear:
        return ScoredLinear(linear.in_features, linear.out_features, linear.bias is not None, self.score_speed)

    def importance(self, module: MaskedLinear) -> Tensor:
        assert isinstance(module, ScoredLinear)
        return module.importance().detach()


@compressors.register("prune-movement", source="Sanh et al. 2020, arXiv:2005.07683, section 4")
@dataclass(frozen=True)
class PruneMovement(_Movement):
    """Sets weights to zero that training moves towards zero: scores are learned with them. Smaller, not faster.

    A weight's score sums up -dL/dW * W; the lowest go, of all matrices together, by a cubic schedule.
    """

    start: Part = 0.1


@compressors.register("prune-movement-soft", source="Sanh et al. 2020, arXiv:2005.07683, section 4, soft")
@dataclass(frozen=True)
class PruneMovementSoft(_Movement):
    """Sets weights to zero whose learned score falls below a threshold, by a penalty. Smaller, not faster.

    sigmoid(S) > `threshold` stays; penalty * mean sigmoid(S) is added to the loss, growing by the cubic schedule. How
    many go follows from the two; `sparsity` is the most that may. Scores begin at 0.
    """

    sparsity: Share = 0.95
    """the most that goes, whatever the scores say"""
    threshold: Share = 0.1
    penalty: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 100.0

    @torch.no_grad()
    def on_step(self, model: PreTrainedModel, step: int, total: int) -> None:
        modules = masked_modules(model)
        count = sum(module.weight.numel() for module in modules.values())
        growing = self.penalty * cubic(step, total, start=self.start, end=self.end)
        for module in modules.values():
            assert isinstance(module, ScoredLinear)
            module.penalty = growing / count
        put_masks_(modules, self._gone(modules))

    @torch.no_grad()
    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        return finished(model, self._gone(masked_modules(model)))

    def _gone(self, modules: Mapping[str, MaskedLinear]) -> dict[str, Tensor]:
        scores = {path: self.importance(module) for path, module in modules.items()}
        most = smallest_of_all(scores, self.sparsity)
        return {path: most[path] & (torch.sigmoid(score) <= self.threshold) for path, score in scores.items()}


def masked_modules(model: PreTrainedModel) -> dict[str, MaskedLinear]:
    """By path, each once."""
    return {path: module for path, module in model.named_modules() if isinstance(module, MaskedLinear)}


def put_masks_(modules: Mapping[str, MaskedLinear], gone: Mapping[str, Tensor]) -> None:
    """Mask these weights, and no others."""
    for path, module in modules.items():
        module.mask.copy_(~gone[path])


def finished(model: PreTrainedModel, gone: Mapping[str, Tensor]) -> PreTrainedModel:
    """A copy with plain maps in the places of the masked ones, without the weights that are gone."""
    made = deepcopy(model)
    for path, module in masked_modules(made).items():
        replace_module_(made, path, module.plain())
    return made_sparse(made, gone)
