"""Liger's kernels on a GPU: layer norms, and `mlm` fused with its projection.

Hsu et al. 2024, arXiv:2410.10989; the package liger-kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from affinage.errors import MissingExtra
from affinage.losses.base import DistillationLoss
from affinage.losses.labels import MaskedLanguageModel
from affinage.losses.vocabulary import VocabularyLoss
from affinage.signals import IGNORED, Batch, Signals, Sum


def fuse_norms_(*models: nn.Module) -> None:
    """Compute every plain `nn.LayerNorm` of the models by Liger's kernel; parameters, names and files stay."""
    for model in models:
        for module in model.modules():
            if type(module) is nn.LayerNorm and module.weight is not None and module.bias is not None:
                module.__class__ = LigerNorm


class LigerNorm(nn.LayerNorm):
    """As `nn.LayerNorm` over the last dimension, with a weight and a bias."""

    def forward(self, input: Tensor) -> Tensor:
        # Under autocast to bfloat16 torch's own gives float32 too.
        wide = input.float() if torch.is_autocast_enabled(input.device.type) else input
        return cast(Tensor, liger_operations().LigerLayerNormFunction.apply(wide, self.weight, self.bias, self.eps))


@dataclass(frozen=True)
class LigerMaskedLanguageModel:
    """`mlm` in value and gradient: projection and cross-entropy together, chunk by chunk."""

    needs: ClassVar[frozenset[str]] = MaskedLanguageModel.needs
    teacher_needs: ClassVar[frozenset[str]] = frozenset()

    def positions(self, batch: Batch) -> Tensor:
        """Those of `mlm`."""
        return MaskedLanguageModel().positions(batch)

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        if student.head_input is None or student.head_weight is None or batch.labels is None:
            raise ValueError("mlm needs head_input, head_weight and labels")
        fused = liger_operations().LigerFusedLinearCrossEntropyFunction
        labels = batch.labels[batch.head_positions]
        given = (student.head_input, student.head_weight, labels, student.head_bias)
        found = fused.apply(*given, None, IGNORED, 0.0, 0.0, "sum")
        return Sum(found[0] if isinstance(found, tuple) else found, self.positions(batch).sum())


def with_liger(losses: Sequence[DistillationLoss]) -> tuple[DistillationLoss, ...]:
    """`mlm` fused, unless other losses want logits too: those are then made once for all of them, in chunks."""
    if sum(isinstance(loss, VocabularyLoss) for loss in losses) > 1:
        return tuple(losses)
    return tuple(LigerMaskedLanguageModel() if isinstance(loss, MaskedLanguageModel) else loss for loss in losses)


def liger_operations() -> Any:
    """Those of the package. Raises: MissingExtra where it is not installed."""
    try:
        import liger_kernel.ops as operations
    except ImportError:
        raise MissingExtra("liger-kernel", "liger") from None
    return operations
