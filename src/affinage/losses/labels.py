"""Losses against labels that come with the data, without a teacher."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from affinage.losses.base import distillation_losses
from affinage.losses.vocabulary import chunked_loss, selected_rows
from affinage.signals import IGNORED, Batch, Signals, Sum


@distillation_losses.register("mlm", source="Devlin et al. 2019 (BERT), arXiv:1810.04805, section 3.1")
@dataclass(frozen=True)
class MaskedLanguageModel:
    """Cross-entropy of the original tokens at the masked positions, mean over these; exp of it is a perplexity."""

    needs: ClassVar[frozenset[str]] = frozenset({"head"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset()

    def positions(self, batch: Batch) -> Tensor:
        if batch.labels is None:
            raise ValueError("mlm needs masked language model labels")
        return batch.labels != IGNORED

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        positions = self.positions(batch)
        assert batch.labels is not None
        labels = batch.labels[batch.head_positions]
        total = chunked_loss(
            student,
            selected_rows(positions, batch),
            target=lambda rows: labels[rows],
            token_loss=lambda logits, targets: cross_entropy(logits.float(), targets, reduction="sum"),
        )
        return Sum(total, positions.sum())
