"""Losses between the hidden states of teacher and student."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cosine_similarity

from affinage.losses.base import distillation_losses
from affinage.signals import Batch, Signals, Sum


def _last_layer_cosines(student: Signals, teacher: Signals, batch: Batch) -> Tensor:
    """(n,) cosine between the last hidden states of student and teacher at every real token."""
    if student.hidden_states is None or teacher.hidden_states is None:
        raise ValueError("a loss on hidden states needs hidden_states of student and teacher")
    ours, theirs = student.hidden_states[-1][batch.mask], teacher.hidden_states[-1][batch.mask].detach()
    return cosine_similarity(ours.float(), theirs.float(), dim=-1)


@dataclass(frozen=True)
class _LastLayer:
    """A loss on the last hidden states of equal width, summed over real tokens."""

    needs: ClassVar[frozenset[str]] = frozenset({"hidden_states"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset({"hidden_states"})

    def positions(self, batch: Batch) -> Tensor:
        return batch.mask


@distillation_losses.register("cosine_distance", source="Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, section 2")
@dataclass(frozen=True)
class CosineDistance(_LastLayer):
    """1 - cos between the last hidden states, mean over real tokens; 0 where they point the same way."""

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        return Sum((1 - _last_layer_cosines(student, teacher, batch)).sum(), batch.mask.sum())


@distillation_losses.register("cosine_similarity", source="Delestre & Amar 2022, arXiv:2205.11111, eq. 11 as printed")
@dataclass(frozen=True)
class CosineSimilarity(_LastLayer):
    """cos between the last hidden states, as the article prints it: minimising it turns the vectors away."""

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        return Sum(_last_layer_cosines(student, teacher, batch).sum(), batch.mask.sum())
