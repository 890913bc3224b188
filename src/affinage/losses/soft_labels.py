"""Losses between the teacher's and the student's distributions over the vocabulary, at temperature tau.

With p = softmax(teacher logits / tau) and q = softmax(student logits / tau), each loss is multiplied by tau**2, so that
its gradient keeps its size when tau changes (Hinton et al. 2015, section 2.1).
"""

from dataclasses import dataclass
from math import log
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import log_softmax

from affinage.losses.base import distillation_losses
from affinage.losses.compiling import compiled
from affinage.losses.vocabulary import VocabularyLoss
from affinage.signals import IGNORED, Batch

Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def soft_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(n,) tau**2 * KL(p || q) of logits (n, V)."""
    log_p, log_q = log_softmax(teacher / temperature, -1), log_softmax(student / temperature, -1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)


def soft_kl_in_one_pass(
    student: Tensor, teacher: Tensor, biases: tuple[Tensor, Tensor], temperature: float, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """(n,) soft_kl of logits (n, V) that still lack their `biases` (V,), and (n, V) `scale` () times its gradient by
    the student's, in the precision of the logits given.

    Written for torch.compile, which makes few passes over each row of it: maxima, sums, gradient.
    """
    x, y = (student.float() + biases[0]) / temperature, (teacher.float() + biases[1]) / temperature
    most_x, most_y = x.amax(-1, keepdim=True), y.amax(-1, keepdim=True)
    q, p = (x - most_x).exp(), (y - most_y).exp()
    sum_q, sum_p = q.sum(-1, keepdim=True), p.sum(-1, keepdim=True)
    apart = (p * (y - x)).sum(-1, keepdim=True) / sum_p  # sum of p (log p - log q), without their normalisers
    value = temperature**2 * (apart + most_x + sum_q.log() - most_y - sum_p.log())
    return value[:, 0], (scale * temperature * (q / sum_q - p / sum_p)).to(student.dtype)


def reverse_soft_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(n,) tau**2 * KL(q || p) of logits (n, V)."""
    return soft_kl(teacher, student, temperature)


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(n,) -tau**2 * sum p log q of logits (n, V): soft_kl plus tau**2 times the teacher's entropy, same gradient."""
    p, log_q = torch.softmax(teacher / temperature, -1), log_softmax(student / temperature, -1)
    return -(temperature**2) * (p * log_q).sum(-1)


def soft_jensen_shannon(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(n,) tau**2 * (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2, of logits (n, V)."""
    log_p, log_q = log_softmax(teacher / temperature, -1), log_softmax(student / temperature, -1)
    log_m = torch.logaddexp(log_p, log_q) - log(2)
    to_m = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
    return temperature**2 * 0.5 * to_m.sum(-1)


@dataclass(frozen=True)
class SoftLabels(VocabularyLoss):
    """A loss between vocabulary distributions, summed over tokens."""

    temperature: Temperature = 2.0
    tokens: Literal["real", "masked"] = "real"
    """real: every token that is not padding, special tokens included; masked: only those the student must guess"""

    teacher_needs: ClassVar[frozenset[str]] = frozenset({"head"})

    def positions(self, batch: Batch) -> Tensor:
        if self.tokens == "real":
            return batch.mask
        if batch.labels is None:
            raise ValueError("tokens='masked' needs masked language model labels")
        return batch.labels != IGNORED

    def per_token(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(n,) of logits (n, V)."""
        raise NotImplementedError

    def value(self, student: Tensor, teacher: Tensor | None, labels: Tensor | None) -> Tensor:
        assert teacher is not None
        return self.per_token(student, teacher).sum()


@distillation_losses.register("soft_kl", source="Hinton et al. 2015, arXiv:1503.02531; Sanh et al. 2019 (DistilBERT)")
@dataclass(frozen=True)
class SoftKL(SoftLabels):
    """KL from teacher to student, tau**2 * KL(p || q), mean over tokens; 0 at agreement."""

    def per_token(self, student: Tensor, teacher: Tensor) -> Tensor:
        return soft_kl(student, teacher, self.temperature)

    def of_logits(self, student: Tensor, teacher: Tensor | None, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """In closed form, because it is computed at every token: the gradient is tau * (q - p)."""
        assert teacher is not None
        teacher, student = teacher.div_(self.temperature), student.div_(self.temperature)
        log_p, log_q = log_softmax(teacher, -1), log_softmax(student, -1)
        p = torch.exp(log_p, out=teacher)
        value = self.temperature**2 * torch.linalg.vecdot(p, log_p.sub_(log_q)).sum()
        return value, log_q.exp_().sub_(p).mul_(self.temperature)

    def in_one_pass(
        self, student: Tensor, teacher: Tensor, biases: tuple[Tensor, Tensor], scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `soft_kl_in_one_pass`, compiled."""
        found: tuple[Tensor, Tensor] = compiled(soft_kl_in_one_pass)(student, teacher, biases, self.temperature, scale)
        return found


@distillation_losses.register("reverse_soft_kl", source="Delestre & Amar 2022, arXiv:2205.11111, eq. 10 as printed")
@dataclass(frozen=True)
class ReverseSoftKL(SoftLabels):
    """KL from student to teacher, tau**2 * KL(q || p), mean over tokens; 0 at agreement."""

    def per_token(self, student: Tensor, teacher: Tensor) -> Tensor:
        return reverse_soft_kl(student, teacher, self.temperature)


@distillation_losses.register("soft_cross_entropy", source="Hinton et al. 2015, arXiv:1503.02531, section 2")
@dataclass(frozen=True)
class SoftCrossEntropy(SoftLabels):
    """Cross-entropy against the teacher's distribution: the gradient of soft_kl, but not 0 at agreement."""

    def per_token(self, student: Tensor, teacher: Tensor) -> Tensor:
        return soft_cross_entropy(student, teacher, self.temperature)


@distillation_losses.register("soft_jensen_shannon", source="Lin 1991, IEEE Trans. Inf. Theory 37(1), equation 3.6")
@dataclass(frozen=True)
class SoftJensenShannon(SoftLabels):
    """Jensen-Shannon divergence, symmetric and bounded by tau**2 * log 2; 0 at agreement."""

    def per_token(self, student: Tensor, teacher: Tensor) -> Tensor:
        return soft_jensen_shannon(student, teacher, self.temperature)
