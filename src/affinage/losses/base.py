"""What a distillation loss is, and where it is registered."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from affinage.registry import Registry
from affinage.signals import Batch, Head, Signals, Sum

NEEDS = frozenset(
    {"head", "hidden_states", "last_hidden_state", "queries", "keys", "values", "logits", "next_sentence"}
)
"""What a loss may ask of the forward pass: inputs of the vocabulary head, hidden states of every layer or of the last,
queries, keys and values of every layer, a small head's logits, those of the next-sentence head."""


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


@dataclass(frozen=True)
class Shape:
    """What a loss may have to know of a model before training."""

    layers: int
    width: int
    heads: int
    head: Head | None = None
    """of a task; None: a vocabulary head, or none"""


@runtime_checkable
class OfHeads(Protocol):
    """A loss on a task's logits that has a meaning for some heads only."""

    heads: ClassVar[frozenset[Head]]


@runtime_checkable
class Shaped(Protocol):
    """A loss that depends on the shapes of the two models, or has weights of its own."""

    def build(self, student: Shape, teacher: Shape) -> DistillationLoss:
        """What takes its place: an nn.Module where there are weights to train, which the objective then owns.

        Raises: InputError where the two shapes cannot be compared.
        """
        ...


distillation_losses: Registry[DistillationLoss] = Registry("loss")
