"""Linear maps whose weights are masked while they train; in the end only what the mask leaves is kept."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from affinage.models.modules.base import Compressed, Settings, register_module


@register_module("masked-linear")
class MaskedLinear(Compressed):
    """(…, in) -> (…, out): x (W * mask)^T + b. A masked weight keeps its value and gets no gradient."""

    def __init__(self, in_features: int, out_features: int, bias: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_features)) if bias else None)
        self.mask: Tensor
        self.register_buffer("mask", torch.ones(out_features, in_features, dtype=torch.bool))

    def settings(self) -> Settings:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias is not None,
        }

    def dense(self) -> Tensor:
        return (self.weight * self.mask).float()

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return linear(x, self.dense(), self.bias)

    @torch.no_grad()
    def plain(self) -> nn.Linear:
        """The unmasked map."""
        made = nn.Linear(self.in_features, self.out_features, self.bias is not None, device=self.weight.device)
        made.load_state_dict({name: value for name, value in self.named_parameters() if name in ("weight", "bias")})
        return made


@register_module("scored-linear")
class ScoredLinear(MaskedLinear):
    """A masked map that learns scores S for its weights; the mask takes no part in differentiation.

    dL/dS = dL/d(W * mask) * W, straight through the mask (Sanh et al. 2020, section 4). `scores` (out * in,) are S over
    `speed`: an optimizer of one learning rate then moves scores that many times faster than weights.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool, speed: float) -> None:
        super().__init__(in_features, out_features, bias)
        self.speed = speed
        self.scores = nn.Parameter(torch.zeros(out_features * in_features))
        self.penalty = 0.0
        """of the next pass alone: factor of sum sigmoid(S), whose gradient is added to that of the scores"""

    def settings(self) -> Settings:
        return {**super().settings(), "speed": self.speed}

    def importance(self) -> Tensor:
        """(out, in): S."""
        return (self.speed * self.scores).view(self.weight.shape)

    def dense(self) -> Tensor:
        scores = self.importance()
        if self.penalty and torch.is_grad_enabled():
            scores, self.penalty = _Penalised.apply(scores, self.penalty), 0.0
        return (self.weight * (self.mask + scores - scores.detach())).float()


class _Penalised(torch.autograd.Function):
    """The scores as they are; backward adds the gradient of amount * sum sigmoid(S)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, amount: float) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(scores)
        ctx.amount = amount
        return scores.view_as(scores)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        chance = torch.sigmoid(ctx.saved_tensors[0])
        return gradient + ctx.amount * chance * (1 - chance), None
