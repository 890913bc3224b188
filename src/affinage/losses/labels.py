"""Losses against labels that come with the data, without a teacher."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from affinage.losses.base import distillation_losses
from affinage.losses.vocabulary import VocabularyLoss
from affinage.signals import IGNORED, Batch


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
