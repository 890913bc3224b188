"""Patient distillation: the student follows the teacher's inner layers at the token that stands for the text."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from affinage.errors import InputError
from affinage.losses.base import DistillationLoss, Shape, distillation_losses
from affinage.losses.layers import check_uniform, uniform_step
from affinage.signals import Batch, Signals, Sum


@distillation_losses.register("patient_mse", source="Sun et al. 2019 (Patient KD), arXiv:1908.09355, section 3.2")
@dataclass(frozen=True)
class PatientMSE:
    """Squared distance of the first token's hidden states, each of length 1; 0 where all point the same way.

    Every student layer but the last is compared with one of the teacher's. The squares are averaged over width, layers
    and texts, as in the released code, whose weights of 10 to 1000 go with that; the paper adds them up.
    """

    layers: Literal["skip", "last"] | tuple[Annotated[int, Field(ge=0)], ...] = "skip"
    """of the teacher: skip, at equal distances (2, 4, 6, 8, 10 of 12 for 6, counted from 1); last, those before its
    last (7 to 11); or one for each student layer but the last, counted from 0"""

    needs: ClassVar[frozenset[str]] = frozenset({"hidden_states"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset({"hidden_states"})

    def positions(self, batch: Batch) -> Tensor:
        """(B, T) bool: where a text begins."""
        texts = batch.mask.long() if batch.segments is None else batch.segments
        begins = batch.mask.clone()
        begins[:, 1:] &= texts[:, 1:] != texts[:, :-1]
        return begins

    def build(self, student: Shape, teacher: Shape) -> DistillationLoss:
        """Itself. Raises: InputError where widths or depths do not fit, or a layer is not there."""
        if student.width != teacher.width:
            raise InputError(
                f"loss 'patient_mse' compares hidden states as they are: the student's width is {student.width}, the "
                f"teacher's {teacher.width}; leave student.hidden_size out"
            )
        if student.layers < 2:
            raise InputError("loss 'patient_mse' leaves the last layer out: give the student two layers at least")
        if self.layers == "skip":
            check_uniform("patient_mse", student, teacher)
        elif self.layers == "last":
            if student.layers > teacher.layers:
                raise InputError(
                    f"loss 'patient_mse': the student has {student.layers} layers, the teacher {teacher.layers}; it "
                    "can have no more than the teacher"
                )
        elif len(self.layers) != student.layers - 1 or max(self.layers) >= teacher.layers:
            raise InputError(
                f"loss 'patient_mse': layers {list(self.layers)} should name {student.layers - 1} of the teacher's "
                f"layers, 0 to {teacher.layers - 1}, one for each student layer but the last"
            )
        return self

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        if student.hidden_states is None or teacher.hidden_states is None:
            raise ValueError("patient_mse needs hidden_states of student and teacher")
        first = self.positions(batch)
        pairs = self._pairs(len(student.hidden_states) - 1, len(teacher.hidden_states) - 1)
        total = torch.zeros((), device=batch.mask.device)
        for ours, theirs in pairs:
            apart = _directions(student, ours, first) - _directions(teacher, theirs, first).detach()
            total = total + apart.square().mean(-1).sum() / len(pairs)
        return Sum(total, first.sum())

    def _pairs(self, student: int, teacher: int) -> list[tuple[int, int]]:
        """Hidden states of the student, and of the teacher, that are compared; 0 is the embedding output."""
        inner = range(1, student)
        if self.layers == "skip":
            return [(layer, layer * uniform_step(student, teacher)) for layer in inner]
        if self.layers == "last":
            return [(layer, teacher - student + layer) for layer in inner]
        return [(layer, chosen + 1) for layer, chosen in zip(inner, self.layers, strict=True)]


def _directions(signals: Signals, index: int, places: Tensor) -> Tensor:
    """(n, H) float32 hidden states at `places` (B, T), each of length 1."""
    assert signals.hidden_states is not None
    return normalize(signals.hidden_states[index][places].float(), dim=-1)
