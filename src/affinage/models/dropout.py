"""Dropout that takes its random bits four at a time: torch's own draws one number an element, on one CPU core."""

from typing import Any

import torch
from torch import Tensor, nn

_LEVELS = 2**16
"""Of a 16-bit draw: probabilities are rounded to a 65,536th, and the scale fits the rounded one."""


class QuickDropout(nn.Dropout):
    """As `nn.Dropout`, of which it draws another, equally random mask; on a CPU about five times as fast."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0 or input.device.type != "cpu":
            return super().forward(input)
        return dropped(input, self.p)


def dropped(x: Tensor, p: float) -> Tensor:
    """`x` on a CPU, each element 0 with probability `p` and the others divided by 1 - `p`."""
    result: Tensor = _Dropout.apply(x, p)  # type: ignore[no-untyped-call]
    return result


def quicken_dropout_(model: nn.Module) -> None:
    """Put `QuickDropout` in the place of every plain `nn.Dropout` in `model`; weights and files stay as they are."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, QuickDropout(child.p).train(child.training))


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        count = round(p * _LEVELS)
        # From torch's generator, whose state checkpoints keep; the range is that of all 64 bits.
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        draws = bits.view(torch.int16)[: x.numel()].view(x.shape)
        # What is kept has the type of `x`: products of booleans with numbers are several times slower.
        kept = torch.ge(draws, count - _LEVELS // 2, out=torch.empty(x.shape, dtype=x.dtype))
        kept.mul_(_LEVELS / (_LEVELS - count) if count < _LEVELS else 0.0)
        ctx.save_for_backward(kept)
        return x * kept

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (kept,) = ctx.saved_tensors
        return upstream[0] * kept, None
