"""Losses of a task, whatever its kind: against its labels, and the soft labels that its kind asks for."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from affinage.errors import InputError
from affinage.losses.base import DistillationLoss, Shape, distillation_losses
from affinage.losses.logits import ClassSoftKL, MultiLabelSoftKL, RegressionMSE, SpanSoftKL, TokenSoftKL, row_places
from affinage.signals import IGNORED, Batch, Head, Signals, Sum


@dataclass(frozen=True)
class LabelLoss:
    """A loss against labels as a head of this kind has them; rows, or tokens, without one do not count."""

    head: Head

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset()

    def positions(self, batch: Batch) -> Tensor:
        known = _known(batch, self.head)
        return batch.mask & known if self.head == "token" else row_places(batch) & known[:, None]

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        if student.logits is None or batch.labels is None:
            raise ValueError("the loss needs the student's logits, and labels")
        places = self.positions(batch)
        chosen = places if self.head == "token" else places.any(1)
        logits, labels = student.logits.float(), batch.labels[chosen]
        if self.head == "span":
            logits = logits.masked_fill(~batch.mask[..., None], torch.finfo(logits.dtype).min)
        return Sum(_per_place(logits[chosen], labels, self.head).sum(), places.sum())


@dataclass(frozen=True)
class _Of:
    """A label loss under a name of its own."""

    needs: ClassVar[frozenset[str]] = LabelLoss.needs
    teacher_needs: ClassVar[frozenset[str]] = LabelLoss.teacher_needs
    _loss: ClassVar[LabelLoss]

    def positions(self, batch: Batch) -> Tensor:
        return self._loss.positions(batch)

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        return self._loss(student, teacher, batch)


@distillation_losses.register(
    "task_labels", source="Devlin et al. 2019 (BERT), arXiv:1810.04805, section 4: the stock model's own loss"
)
@dataclass(frozen=True)
class TaskLabels(_Of):
    """Against the labels there are, mean over them: cross-entropy; of several labels binary; of a value squared.

    Spans: the mean of start and end, over real tokens; the stock loss counts padding too.
    """

    _loss: ClassVar[LabelLoss] = LabelLoss("classes")

    def build(self, student: Shape, teacher: Shape) -> DistillationLoss:
        """The one for the student's head. Raises: InputError where it has none."""
        return LabelLoss(_head("task_labels", student))


@distillation_losses.register(
    "regression_hard_labels",
    source="huawei-noah/Pretrained-Language-Model, TinyBERT/task_distill.py: STS-B's prediction stage",
)
@dataclass(frozen=True)
class RegressionHardLabels(_Of):
    """Squared distance from the label instead of the teacher's value, mean over rows; as TinyBERT did for STS-B."""

    heads: ClassVar[frozenset[Head]] = frozenset({"regression"})
    _loss: ClassVar[LabelLoss] = LabelLoss("regression")


@distillation_losses.register("task_soft_kl", source="Hinton et al. 2015, arXiv:1503.02531, section 2")
@dataclass(frozen=True)
class TaskSoftKL(ClassSoftKL):
    """Soft labels as the task has them: KL of classes, labels, tags, spans; squared distance of values; 0 at agreement.

    As class_soft_kl, multi_label_soft_kl, token_soft_kl, span_soft_kl or regression_mse, by the student's head.
    """

    def build(self, student: Shape, teacher: Shape) -> DistillationLoss:
        """The one for the student's head. Raises: InputError where it has none."""
        match _head("task_soft_kl", student):
            case "classes":
                return ClassSoftKL(self.temperature)
            case "multi_label":
                return MultiLabelSoftKL(self.temperature)
            case "regression":
                return RegressionMSE()
            case "token":
                return TokenSoftKL(self.temperature)
            case "span":
                return SpanSoftKL(self.temperature)


def _head(name: str, student: Shape) -> Head:
    if student.head is None:
        raise InputError(f"loss '{name}' is of a task, and the student has no head of one: name it in a stage on task")
    return student.head


def _known(batch: Batch, head: Head) -> Tensor:
    """(B, T) of tags, else (B,): where there is a label. Integers are IGNORED, real numbers NaN where there is none."""
    if batch.labels is None:
        raise ValueError("the loss needs labels")
    known = batch.labels.isfinite() if batch.labels.is_floating_point() else batch.labels != IGNORED
    return known.all(-1) if head in ("multi_label", "span") else known


def _per_place(logits: Tensor, labels: Tensor, head: Head) -> Tensor:
    """(n,) of n rows or tokens: logits (n, C), of spans (n, T, 2)."""
    if head == "multi_label":
        return binary_cross_entropy_with_logits(logits, labels.float(), reduction="none").mean(-1)
    if head == "regression":
        return (logits[:, 0] - labels.float()).square()
    if head == "span":
        return cross_entropy(logits, labels, reduction="none").mean(-1)
    return cross_entropy(logits, labels, reduction="none")
