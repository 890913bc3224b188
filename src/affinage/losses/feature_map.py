"""The squared distance of what one layer of student and teacher gives, where both are as deep and wide (MobileBERT)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn.functional import layer_norm

from affinage.errors import InputError
from affinage.losses.base import DistillationLoss, Shape, distillation_losses
from affinage.signals import Batch, Signals, Sum


@distillation_losses.register("feature_map_mse", source="Sun et al. 2020 (MobileBERT), arXiv:2004.02984, section 3.4")
@dataclass(frozen=True)
class FeatureMapMSE:
    """Squared distance of one layer's hidden states, mean over width and real tokens; 0 where they are the same.

    The reference code splits it into three, each with a weight of its own: `part` names one of them.
    """

    layer: Annotated[int, Field(ge=0)] | None = None
    """of both, counted from 0; None: the last"""
    part: Literal["whole", "normalized", "mean", "variance"] = "whole"
    """normalized: of the states less their mean, over their standard deviation; mean, variance: of these numbers, one a
    token, the variance's by its absolute value"""

    needs: ClassVar[frozenset[str]] = frozenset({"hidden_states"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset({"hidden_states"})

    def positions(self, batch: Batch) -> Tensor:
        return batch.mask

    def build(self, student: Shape, teacher: Shape) -> DistillationLoss:
        """Itself. Raises: InputError where depths or widths differ, or the layer is not there."""
        if (student.layers, student.width) != (teacher.layers, teacher.width):
            raise InputError(
                f"loss 'feature_map_mse' compares layer with layer: the student has {student.layers} of width "
                f"{student.width}, the teacher {teacher.layers} of width {teacher.width}; set "
                f"student.num_hidden_layers={teacher.layers} and leave student.hidden_size out, or take hidden_mse"
            )
        if self.layer is not None and self.layer >= student.layers:
            raise InputError(
                f"loss 'feature_map_mse': layer {self.layer} is not there; both have layers 0 to {student.layers - 1}"
            )
        return self

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        if student.hidden_states is None or teacher.hidden_states is None:
            raise ValueError("feature_map_mse needs hidden_states of student and teacher")
        index = -1 if self.layer is None else self.layer + 1
        ours, theirs = (found[index][batch.mask].float() for found in (student.hidden_states, teacher.hidden_states))
        return Sum(_distances(self.part, ours, theirs.detach()).sum(), batch.mask.sum())


def _distances(part: str, ours: Tensor, theirs: Tensor) -> Tensor:
    """(N,) of (N, width) states."""
    if part == "mean":
        return (ours.mean(-1) - theirs.mean(-1)).square()
    if part == "variance":
        return (ours.var(-1, correction=0) - theirs.var(-1, correction=0)).abs()
    if part == "normalized":
        ours, theirs = (layer_norm(states, states.shape[-1:], eps=1e-12) for states in (ours, theirs))
    return (ours - theirs).square().mean(-1)
