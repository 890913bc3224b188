"""Losses against labels that come with the data, without a teacher."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from affinage.errors import InputError
from affinage.losses.base import Shape, distillation_losses
from affinage.losses.vocabulary import VocabularyLoss
from affinage.signals import IGNORED, Batch, Signals, Sum


@distillation_losses.register("mlm", source="Devlin et al. 2019 (BERT), arXiv:1810.04805, section 3.1")
@dataclass(frozen=True)
class MaskedLanguageModel(VocabularyLoss):
    """Cross-entropy of the original tokens at the masked positions, mean over these; exp of it is a perplexity."""

    def positions(self, batch: Batch) -> Tensor:
        if batch.labels is None:
            raise ValueError("mlm needs masked language model labels")
        return batch.labels != IGNORED

    def of_logits(self, student: Tensor, teacher: Tensor | None, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """In closed form: the gradient is the distribution minus the original token's one."""
        assert labels is not None
        log_q = log_softmax(student, -1)
        true = labels[:, None]
        value = -log_q.gather(1, true).sum()
        return value, log_q.exp_().scatter_add_(1, true, torch.full_like(true, -1, dtype=log_q.dtype))


@distillation_losses.register("nsp", source="Devlin et al. 2019 (BERT), arXiv:1810.04805, section 3.1, task 2")
@dataclass(frozen=True)
class NextSentencePrediction:
    """Cross-entropy of whether the second text of a row follows the first, mean over rows; ln 2 for a coin."""

    needs: ClassVar[frozenset[str]] = frozenset({"next_sentence"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset()

    def build(self, student: Shape, teacher: Shape) -> Self:
        """Raises: InputError always: beside a teacher, rows hold texts and no pairs of them."""
        raise InputError("loss 'nsp' is for affinage pretrain: a student is distilled on single texts; leave it out")

    def positions(self, batch: Batch) -> Tensor:
        """The first token of each row that has an answer."""
        if batch.follows is None:
            raise ValueError("nsp needs rows of two texts")
        first = torch.zeros_like(batch.mask)
        first[:, 0] = batch.mask[:, 0] & (batch.follows != IGNORED)
        return first

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        if student.next_sentence is None or batch.follows is None:
            raise ValueError("nsp needs the logits of a next-sentence head")
        rows = self.positions(batch)[:, 0]
        total = cross_entropy(student.next_sentence[rows].float(), batch.follows[rows], reduction="sum")
        return Sum(total, rows.sum())
