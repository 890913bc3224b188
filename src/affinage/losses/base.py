"""What a distillation loss is, and where it is registered."""

from typing import ClassVar, Protocol

from torch import Tensor

from affinage.registry import Registry
from affinage.signals import Batch, Signals, Sum

NEEDS = frozenset({"head", "hidden_states", "logits"})
"""What a loss may ask of the forward pass: inputs of the vocabulary head, hidden states, a small head's logits."""


class DistillationLoss(Protocol):
    """A sum over places of a batch. `positions` is known before any forward pass, so that the trainer can add the
    counts of accumulation steps and processes first.
    """

    needs: ClassVar[frozenset[str]]
    """of `NEEDS`: what the student's forward pass must expose"""
    teacher_needs: ClassVar[frozenset[str]]
    """of `NEEDS`: what the teacher's must expose; empty where the loss needs no teacher"""

    def positions(self, batch: Batch) -> Tensor:
        """(B, T) bool: the places this loss sums over."""
        ...

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        """The sum over `positions` and their number; the gradient reaches the student only."""
        ...


distillation_losses: Registry[DistillationLoss] = Registry("loss")
