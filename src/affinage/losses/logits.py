"""Losses between the logits that teacher and student give for a task, one or two for each kind of task.

At temperature tau p and q are the teacher's and the student's distributions; losses on them are multiplied by tau**2,
so that the gradient keeps its size when tau changes (Hinton et al. 2015, section 2.1). A row counts once, at its first
token. Letters as in `signals`; n places that are counted.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from affinage.losses.base import distillation_losses
from affinage.losses.soft_labels import Temperature, soft_cross_entropy, soft_kl
from affinage.signals import IGNORED, Batch, Head, Signals, Sum

_NEVER = -1e30
"""Logit of a token that cannot be the answer: its probability is 0 at any temperature, and 0 times it is 0."""


def row_places(batch: Batch) -> Tensor:
    """(B, T) bool: the first token of every row that has one."""
    return batch.mask & (batch.mask.cumsum(1) == 1)


def answer_places(batch: Batch) -> Tensor:
    """(B, T) bool: tokens that an answer may begin or end at, the first one of the row among them: no answer here."""
    inside = batch.mask if batch.context is None else batch.context & batch.mask
    return inside | row_places(batch)


def both(student: Signals, teacher: Signals) -> tuple[Tensor, Tensor]:
    """Their logits in float32. Raises: ValueError where one of them gives none."""
    if student.logits is None or teacher.logits is None:
        raise ValueError("the loss needs a task's logits of student and teacher")
    return student.logits.float(), teacher.logits.detach().float()


def bernoulli_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(n,) -tau**2 * mean_c (p log q + (1 - p) log(1 - q)), p and q sigmoids of logits (n, C) over tau."""
    p = torch.sigmoid(teacher / temperature)
    return temperature**2 * binary_cross_entropy_with_logits(student / temperature, p, reduction="none").mean(-1)


def bernoulli_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(n,) `bernoulli_cross_entropy` less that of the teacher with itself, term by term."""
    ours, theirs = student / temperature, teacher / temperature
    yes, no = logsigmoid(theirs) - logsigmoid(ours), logsigmoid(-theirs) - logsigmoid(-ours)
    p = torch.sigmoid(theirs)
    return temperature**2 * (p * yes + (1 - p) * no).mean(-1)


@dataclass(frozen=True)
class _Rows:
    """A loss on logits (B, C), one value a row."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset({"logits"})

    def positions(self, batch: Batch) -> Tensor:
        return row_places(batch)

    def per_row(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(n,) of logits (n, C)."""
        raise NotImplementedError

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        rows = batch.mask.any(1)
        ours, theirs = both(student, teacher)
        return Sum(self.per_row(ours[rows], theirs[rows]).sum(), rows.sum())


@distillation_losses.register("class_soft_kl", source="Hinton et al. 2015, arXiv:1503.02531, section 2")
@dataclass(frozen=True)
class ClassSoftKL(_Rows):
    """KL from the teacher's classes to the student's, tau**2 * KL(p || q), mean over rows; 0 at agreement."""

    heads: ClassVar[frozenset[Head]] = frozenset({"classes"})

    temperature: Temperature = 2.0

    def per_row(self, student: Tensor, teacher: Tensor) -> Tensor:
        return soft_kl(student, teacher, self.temperature)


@distillation_losses.register(
    "class_soft_cross_entropy", source="Jiao et al. 2020 (TinyBERT), arXiv:1909.10351, equation 10; Hinton et al. 2015"
)
@dataclass(frozen=True)
class ClassSoftCrossEntropy(_Rows):
    """Cross-entropy against the teacher's classes: the gradient of class_soft_kl, but not 0 at agreement."""

    heads: ClassVar[frozenset[Head]] = frozenset({"classes"})

    temperature: Temperature = 1.0

    def per_row(self, student: Tensor, teacher: Tensor) -> Tensor:
        return soft_cross_entropy(student, teacher, self.temperature)


@distillation_losses.register(
    "class_soft_cross_entropy_as_released",
    source="huawei-noah/Pretrained-Language-Model, TinyBERT/task_distill.py, soft_cross_entropy",
)
@dataclass(frozen=True)
class ClassSoftCrossEntropyAsReleased(_Rows):
    """class_soft_cross_entropy as TinyBERT's code has it: averaged over classes too, and without tau**2."""

    heads: ClassVar[frozenset[Head]] = frozenset({"classes"})

    temperature: Temperature = 1.0

    def per_row(self, student: Tensor, teacher: Tensor) -> Tensor:
        whole = soft_cross_entropy(student, teacher, self.temperature)
        return whole / (self.temperature**2 * student.shape[-1])


@distillation_losses.register("multi_label_soft_kl", source="original: Hinton et al. 2015 for each label by itself")
@dataclass(frozen=True)
class MultiLabelSoftKL(_Rows):
    """KL from the teacher's yes or no to the student's, mean over labels and rows; 0 at agreement."""

    heads: ClassVar[frozenset[Head]] = frozenset({"multi_label"})

    temperature: Temperature = 2.0

    def per_row(self, student: Tensor, teacher: Tensor) -> Tensor:
        return bernoulli_kl(student, teacher, self.temperature)


@distillation_losses.register(
    "multi_label_soft_cross_entropy", source="original: Hinton et al. 2015 for each label by itself"
)
@dataclass(frozen=True)
class MultiLabelSoftCrossEntropy(_Rows):
    """Binary cross-entropy against the teacher's sigmoids: the gradient of multi_label_soft_kl, not 0 at agreement."""

    heads: ClassVar[frozenset[Head]] = frozenset({"multi_label"})

    temperature: Temperature = 1.0

    def per_row(self, student: Tensor, teacher: Tensor) -> Tensor:
        return bernoulli_cross_entropy(student, teacher, self.temperature)


@distillation_losses.register("regression_mse", source="Ba & Caruana 2014, arXiv:1312.6184, equation 1")
@dataclass(frozen=True)
class RegressionMSE(_Rows):
    """Squared distance from the teacher's value, mean over rows; 0 where they are equal. Of several logits the mean."""

    heads: ClassVar[frozenset[Head]] = frozenset({"classes", "multi_label", "regression"})

    def per_row(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).square().mean(-1)


@distillation_losses.register("token_soft_kl", source="Hinton et al. 2015, arXiv:1503.02531, section 2, at each word")
@dataclass(frozen=True)
class TokenSoftKL:
    """KL from the teacher's tags to the student's at the first sub-word of each word, mean over words; 0 at agreement.

    These are the tokens that have a label; in a row without labels it is every real token.
    """

    heads: ClassVar[frozenset[Head]] = frozenset({"token"})

    temperature: Temperature = 2.0

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset({"logits"})

    def positions(self, batch: Batch) -> Tensor:
        if batch.labels is None:
            return batch.mask
        known = batch.labels != IGNORED
        return batch.mask & (known | ~known.any(1, keepdim=True))

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        places = self.positions(batch)
        ours, theirs = both(student, teacher)
        return Sum(soft_kl(ours[places], theirs[places], self.temperature).sum(), places.sum())


@distillation_losses.register("span_soft_kl", source="Hinton et al. 2015, arXiv:1503.02531, section 2, start and end")
@dataclass(frozen=True)
class SpanSoftKL:
    """KL from the teacher's start and end of the answer to the student's, mean of the two and of rows; 0 at agreement.

    Both are distributions over the context's tokens and the first one of the row, which stands for no answer.
    """

    heads: ClassVar[frozenset[Head]] = frozenset({"span"})

    temperature: Temperature = 2.0

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset({"logits"})

    def positions(self, batch: Batch) -> Tensor:
        return row_places(batch)

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        rows = batch.mask.any(1)
        outside = ~answer_places(batch)[:, None]
        ours, theirs = (logits.transpose(1, 2).masked_fill(outside, _NEVER)[rows] for logits in both(student, teacher))
        return Sum(soft_kl(ours, theirs, self.temperature).mean(-1).sum(), rows.sum())
