"""A task's student, its teachers and the weighted losses between them, as one module to train."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from affinage.data.taught import to_task_batch
from affinage.distillation.cache import TeacherCache
from affinage.distillation.objective import Objective, head_of
from affinage.distillation.several_teachers import mean_logits
from affinage.models.task_encoder import forward_task
from affinage.recipe import Component
from affinage.signals import Batch, Signals

LOGITS = frozenset({"logits"})


class TaskObjective(Objective):
    """Sums of K losses over a batch of a task's rows. Several teachers speak as one, by the mean of what they say."""

    def __init__(
        self,
        student: PreTrainedModel,
        components: Sequence[Component],
        *,
        teachers: Sequence[PreTrainedModel],
        cache: TeacherCache | None = None,
    ) -> None:
        """`cache`: of the teachers' logits on the training rows, for losses that need no more of them."""
        super().__init__(student, components, teacher=teachers[0], cache=cache, on="task")
        for teacher in teachers:
            teacher.train(False)
            teacher.requires_grad_(False)
        self._teacher = tuple(teachers)

    def counts(self, inputs: dict[str, Tensor]) -> Tensor:
        """(K,) places each loss sums over."""
        batch = to_task_batch(**inputs)
        return torch.stack([loss.positions(batch).sum() for loss in self._losses])

    def forward(self, *, scales: Tensor | None = None, **inputs: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """As `Objective`, of a batch that `TaughtRows` collates; rows seen in evaluation mode are not cached."""
        batch = to_task_batch(**inputs)
        ours = forward_task(self.student, batch, self._needs)
        theirs = self._teachers_signals(batch, inputs.get("places") if self.training else None)
        return self._sums(ours, theirs, batch, self.weights if scales is None else scales)

    @torch.no_grad()
    def _teachers_signals(self, batch: Batch, places: Tensor | None) -> Signals:
        if not self._teacher_needs:
            return Signals()
        for teacher in self._teacher:
            if teacher.device != batch.input_ids.device:
                teacher.to(batch.input_ids.device)  # type: ignore[arg-type]
        if self._teacher_needs != LOGITS:
            return forward_task(self._teacher[0], batch, self._teacher_needs)
        if self._cache is None or places is None:
            return Signals(logits=self._logits(batch))
        return Signals(logits=self._kept_logits(batch, places.tolist()))

    def _logits(self, batch: Batch) -> Tensor:
        """(B, C) or (B, T, C): what the teachers say together."""
        found = []
        for teacher in self._teacher:
            logits = forward_task(teacher, batch, LOGITS).logits
            assert logits is not None
            found.append(logits)
        head = head_of(self.student)
        assert head is not None
        return mean_logits(found, head, batch)

    def _kept_logits(self, batch: Batch, rows: list[int]) -> Tensor:
        """The same from the cache, whose rows are as long as the longest; what it lacks is computed and kept."""
        assert self._cache is not None
        variants = [0] * len(rows)
        kept = self._cache.get(variants, rows)
        if kept is None:
            found = self._logits(batch)
            tokens = found if found.ndim == 3 else found[:, None]
            padded = tokens.new_zeros(len(rows), self._cache.tokens, tokens.shape[-1])
            padded[:, : tokens.shape[1]] = tokens * (batch.mask[..., None] if found.ndim == 3 else 1)
            kept = self._cache.put(variants, rows, padded)
        kept = kept.to(batch.input_ids.device)
        return kept[:, 0] if head_of(self.student) not in ("token", "span") else kept[:, : batch.mask.shape[1]]
