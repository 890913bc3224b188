"""Losses between the hidden states of teacher and student."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from affinage.errors import InputError
from affinage.losses.base import DistillationLoss, Shape, distillation_losses
from affinage.losses.layers import check_uniform, uniform_step
from affinage.signals import Batch, Signals, Sum


def _last_layer_cosines(student: Signals, teacher: Signals, batch: Batch) -> Tensor:
    """(n,) cosine between the last hidden states of student and teacher at every real token."""
    if student.last_hidden_state is None or teacher.last_hidden_state is None:
        raise ValueError("the loss needs last_hidden_state of student and teacher")
    ours, theirs = student.last_hidden_state[batch.mask], teacher.last_hidden_state[batch.mask].detach()
    return cosine_similarity(ours.float(), theirs.float(), dim=-1)


@dataclass(frozen=True)
class _LastLayer:
    """A loss on the last hidden states of equal width, summed over real tokens."""

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"last_hidden_state"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset({"last_hidden_state"})

    def positions(self, batch: Batch) -> Tensor:
        return batch.mask

    def build(self, student: Shape, teacher: Shape) -> DistillationLoss:
        """Itself. Raises: InputError where the widths differ: there is no cosine between unequal spaces."""
        if student.width != teacher.width:
            raise InputError(
                f"loss '{self.name}': the student's width is {student.width}, the teacher's {teacher.width}, and there "
                f"is no angle between the two: set student.hidden_size={teacher.width}, or take the loss hidden_mse, "
                "which learns a map between widths"
            )
        return self

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        raise NotImplementedError


@distillation_losses.register("cosine_distance", source="Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, section 2")
@dataclass(frozen=True)
class CosineDistance(_LastLayer):
    """1 - cos between the last hidden states, mean over real tokens; 0 where they point the same way."""

    name: ClassVar[str] = "cosine_distance"

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        return Sum((1 - _last_layer_cosines(student, teacher, batch)).sum(), batch.mask.sum())


@distillation_losses.register("cosine_similarity", source="Delestre & Amar 2022, arXiv:2205.11111, eq. 11 as printed")
@dataclass(frozen=True)
class CosineSimilarity(_LastLayer):
    """cos between the last hidden states, as the article prints it: minimising it turns the vectors away."""

    name: ClassVar[str] = "cosine_similarity"

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        return Sum(_last_layer_cosines(student, teacher, batch).sum(), batch.mask.sum())


@distillation_losses.register("hidden_mse", source="Jiao et al. 2020 (TinyBERT), arXiv:1909.10351, equations 8 and 9")
@dataclass(frozen=True)
class HiddenMSE:
    """Squared distance of hidden states, the embedding output and every layer; 0 where they are the same.

    Student layer m is compared with teacher layer m * N / M; the squares are averaged over the width and real tokens
    and added over layers. A linear map from the student's width to the teacher's is trained with it, one for all layers
    as in the released code (the paper writes one for the embeddings and one for the rest).
    """

    projection: bool = True
    """False: the student's own hidden states, of equal width"""

    needs: ClassVar[frozenset[str]] = frozenset({"hidden_states"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset({"hidden_states"})

    def positions(self, batch: Batch) -> Tensor:
        return batch.mask

    def build(self, student: Shape, teacher: Shape) -> DistillationLoss:
        """Itself, or with its map. Raises: InputError where depths or widths do not fit."""
        check_uniform("hidden_mse", student, teacher)
        if self.projection:
            return _Projected(self, student.width, teacher.width)
        if student.width != teacher.width:
            raise InputError(
                f"loss 'hidden_mse': the student's width is {student.width}, the teacher's {teacher.width}: leave "
                "projection=false out"
            )
        return self

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        if student.hidden_states is None or teacher.hidden_states is None:
            raise ValueError("hidden_mse needs hidden_states of student and teacher")
        step = uniform_step(len(student.hidden_states) - 1, len(teacher.hidden_states) - 1)
        total = torch.zeros((), device=batch.mask.device)
        for ours, theirs in zip(student.hidden_states, teacher.hidden_states[::step], strict=True):
            apart = ours[batch.mask].float() - theirs[batch.mask].detach().float()
            total = total + apart.square().mean(-1).sum()
        return Sum(total, batch.mask.sum())


class _Projected(nn.Module):
    """A loss on the student's hidden states after a linear map that is trained with it."""

    needs: ClassVar[frozenset[str]] = HiddenMSE.needs
    teacher_needs: ClassVar[frozenset[str]] = HiddenMSE.teacher_needs

    def __init__(self, loss: HiddenMSE, width: int, wanted: int) -> None:
        super().__init__()
        self.loss = loss
        self.map = nn.Linear(width, wanted)
        nn.init.normal_(self.map.weight, std=0.02)
        nn.init.zeros_(self.map.bias)

    def positions(self, batch: Batch) -> Tensor:
        return self.loss.positions(batch)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        if student.hidden_states is None:
            raise ValueError("hidden_mse needs hidden_states of student and teacher")
        mapped = tuple(self.map(hidden) for hidden in student.hidden_states)
        return self.loss(replace(student, hidden_states=mapped), teacher, batch)
