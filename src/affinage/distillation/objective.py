"""A student, its teacher and the weighted losses between them, as one module to train."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

import affinage.losses  # noqa: F401  (registers every loss)
from affinage.data.rows import to_batch
from affinage.distillation.cache import TeacherCache
from affinage.distillation.liger import fuse_norms_, with_liger
from affinage.errors import InputError, LossMisfit
from affinage.losses.base import DistillationLoss, OfHeads, Shape, Shaped, distillation_losses
from affinage.losses.likeliest import likeliest_suffice, packed, unpacked
from affinage.losses.vocabulary import VocabularyLoss, vocabulary_sums
from affinage.models.encoder import forward_masked_lm, with_head
from affinage.models.layout import depth_of, layout_of, widths_of
from affinage.recipe import Component, Stage
from affinage.signals import Batch, Head, Signals


def build_losses(
    components: Sequence[Component], *, teacher: bool, on: Literal["text", "task"] = "text"
) -> tuple[DistillationLoss, ...]:
    """The losses a recipe names, for a stage on raw text or on a task.

    Raises: InputError for every unknown name or parameter, a missing teacher, and logits that such a stage has not.
    """
    if not components:
        raise InputError("the recipe names no losses; see: affinage list losses")
    losses, problems = [], []
    for component in components:
        try:
            loss = distillation_losses.build(component.name, component.params)
        except InputError as error:
            problems.append(str(error))
            continue
        if loss.teacher_needs and not teacher:
            problems.append(f"loss '{component.name}' compares with a teacher, and there is none when pre-training")
        head = {"text": "logits", "task": "head"}[on]
        if head in loss.needs:
            what = {"logits": "a task's logits, and a stage on text", "head": "vocabulary logits, and a stage on task"}
            problems.append(f"loss '{component.name}' is on {what[head]} has none; see: affinage list losses")
        losses.append(loss)
    if problems:
        raise InputError("the recipe's losses:\n  " + "\n  ".join(problems))
    return tuple(losses)


def fit_losses(
    losses: Sequence[DistillationLoss], student: PreTrainedModel, teacher: PreTrainedModel | None
) -> tuple[DistillationLoss, ...]:
    """The losses for these two models: those that depend on shapes are built, with fresh weights where they have any.

    Raises: LossMisfit where one of them cannot compare the two; InputError where one is of another kind of task.
    """
    if teacher is None:
        return tuple(losses)
    ours, theirs = _shape(student), _shape(teacher)
    for loss in losses:
        if isinstance(loss, OfHeads) and not isinstance(loss, Shaped):
            _refuse_other_head(loss, ours.head)
        if {"queries", "keys"} <= loss.needs:  # compares what attention makes of both together
            _refuse_partial_scores(loss, student, teacher)
    try:
        return tuple(loss.build(ours, theirs) if isinstance(loss, Shaped) else loss for loss in losses)
    except InputError as error:
        raise LossMisfit(str(error)) from error


def fit_stage(stage: Stage, student: PreTrainedModel, teacher: PreTrainedModel, *, on: Literal["text", "task"]) -> None:
    """Raises: InputError where the losses of a stage cannot compare the two."""
    fit_losses(build_losses(stage.losses, teacher=True, on=on), student, teacher)


def _refuse_other_head(loss: OfHeads, head: Head | None) -> None:
    """Raises: InputError where the task's head gives logits that the loss does not mean."""
    if head not in loss.heads:
        raise InputError(
            f"loss '{_name_of(loss)}' is on the logits of {_listed(loss.heads)}, and this task's are of "
            f"{_listed({head} if head else ())}; task_soft_kl and task_labels are what every task has"
        )


def _name_of(loss: object) -> str:
    return next(e.name for e in distillation_losses.entries() if e.component is type(loss))


def _listed(heads: Iterable[Head]) -> str:
    names = {"classes": "classes", "multi_label": "several labels", "regression": "a value", "token": "tags", "span":
             "spans"}  # fmt: skip
    return " or ".join(sorted(names[head] for head in heads)) or "no kind"


def _refuse_partial_scores(loss: DistillationLoss, *models: PreTrainedModel) -> None:
    """Raises: LossMisfit where the products of queries and keys are not all that a model's attention compares."""
    for model in models:
        if why := layout_of(model.config).more_in_scores:
            raise LossMisfit(
                f"loss '{_name_of(loss)}' compares attention scores as products of queries and keys; in a "
                f"'{model.config.model_type}' {why}. Take losses that compare hidden states, or queries, keys and "
                "values each among themselves, as in recipe 'minilmv2'"
            )


def _shape(model: PreTrainedModel) -> Shape:
    widths = widths_of(model.config)
    return Shape(depth_of(model.config), widths["hidden_size"], widths["num_attention_heads"], head_of(model))


def head_of(model: PreTrainedModel) -> Head | None:
    """What the head of a task gives; None where it is another one, or there is none."""
    name = type(model).__name__
    if name.endswith("ForTokenClassification"):
        return "token"
    if name.endswith(("ForQuestionAnswering", "ForQuestionAnsweringSimple")):
        return "span"
    if not name.endswith("ForSequenceClassification"):
        return None
    if model.config.problem_type == "multi_label_classification":
        return "multi_label"
    regression = model.config.problem_type == "regression" or model.config.num_labels == 1
    return "regression" if regression else "classes"


LAST, HEAD = frozenset({"last_hidden_state"}), frozenset({"head"})


class Objective(nn.Module):
    """Sums of K losses over a batch. The teacher is held, not owned: it is frozen and never saved."""

    weights: Tensor

    def __init__(
        self,
        student: PreTrainedModel,
        components: Sequence[Component],
        *,
        teacher: PreTrainedModel | None = None,
        cache: TeacherCache | None = None,
        on: Literal["text", "task"] = "text",
    ) -> None:
        """`cache`: of the teacher's last hidden states on the training rows, for losses that need no more of it; where
        its likeliest tokens suffice for them, of these.
        """
        super().__init__()
        self.student = student
        self.names = tuple(_unique(component.name for component in components))
        self._losses = fit_losses(build_losses(components, teacher=teacher is not None, on=on), student, teacher)
        self.fitted = nn.ModuleDict(
            {name: loss for name, loss in zip(self.names, self._losses, strict=True) if isinstance(loss, nn.Module)}
        )
        self.register_buffer("weights", torch.tensor([c.weight for c in components]), persistent=False)
        self._teacher: tuple[PreTrainedModel, ...] = () if teacher is None else (_frozen(teacher),)
        self._cache = cache
        self._one_pass = False
        self._needs: frozenset[str] = frozenset().union(*(loss.needs for loss in self._losses))
        self._teacher_needs: frozenset[str] = frozenset().union(*(loss.teacher_needs for loss in self._losses))

    def compile_(self) -> None:
        """Let torch compile what it makes one kernel of: vocabulary losses."""
        self._one_pass = True

    def use_liger_(self) -> None:
        """Compute what Liger has kernels for by them: norms of student and teachers, `mlm` where it is alone."""
        fuse_norms_(self.student, *self._teacher)
        self._losses = with_liger(self._losses)

    def counts(self, inputs: dict[str, Tensor]) -> Tensor:
        """(K,) places each loss sums over."""
        batch = to_batch(**inputs)
        return torch.stack([loss.positions(batch).sum() for loss in self._losses])

    def loss_parameters(self) -> dict[str, Tensor]:
        """Parameters the losses own."""
        return dict(self.fitted.named_parameters())

    def forward(
        self,
        input_ids: Tensor,
        segments: Tensor,
        labels: Tensor,
        places: Tensor | None = None,
        scales: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        follows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """() sum of scales[k] * total[k], with gradient, and the totals (K,) of the losses over (B, T) inputs, without.

        `places` (B, 2): variant and row, by which the cache knows them; held-out rows, which are seen in evaluation
        mode, are not cached. `scales` (K,): the weights, already divided by what each loss is a mean over; None: the
        weights. `token_type_ids` (B, T) and `follows` (B,): of rows of two texts.
        """
        scales = self.weights if scales is None else scales
        batch = to_batch(input_ids, segments, labels, token_type_ids=token_type_ids, follows=follows)
        batch = replace(batch, selected=self._selected(batch))
        ours = forward_masked_lm(self.student, batch, self._needs, few_shapes=True)
        return self._sums(ours, self._teacher_signals(batch, places if self.training else None), batch, scales)

    def _sums(self, ours: Signals, theirs: Signals, batch: Batch, scales: Tensor) -> tuple[Tensor, Tensor]:
        """() sum of scales[k] * total[k], and the totals (K,) without gradient."""
        totals = torch.zeros_like(self.weights)
        weighted = totals.new_zeros(())
        joint = {k: loss for k, loss in enumerate(self._losses) if isinstance(loss, VocabularyLoss)}
        if joint:
            at = list(joint)
            weighted, totals[at] = vocabulary_sums(
                list(joint.values()), ours, theirs, batch, scales[at], one_pass=self._one_pass
            )
        for k, loss in enumerate(self._losses):
            if k not in joint:
                total = loss(ours, theirs, batch).total
                weighted = weighted + scales[k] * total
                totals[k] = total.detach()
        return weighted, totals

    def _selected(self, batch: Batch) -> Tensor:
        """(B, T) bool: where any loss wants vocabulary logits; the head is computed nowhere else."""
        wanted = torch.zeros_like(batch.mask)
        for loss in self._losses:
            if "head" in loss.needs:
                wanted |= loss.positions(batch)
        return wanted

    @torch.no_grad()
    def _teacher_signals(self, batch: Batch, places: Tensor | None) -> Signals:
        if not self._teacher or not self._teacher_needs:
            return Signals()
        teacher = self._teacher[0]
        if teacher.device != batch.input_ids.device:
            teacher.to(batch.input_ids.device)  # type: ignore[arg-type]
        if self._cache is None or places is None:
            return forward_masked_lm(teacher, batch, self._teacher_needs, few_shapes=True)
        variants, rows = places.t().tolist()
        if (cut := likeliest_suffice(self._losses, teacher.config.vocab_size)) is not None:
            return self._likeliest(self._cache, variants, rows, batch, *cut)
        last = self._cache.get(variants, rows)
        if last is None:
            found = forward_masked_lm(teacher, batch, LAST).last_hidden_state
            assert found is not None
            last = self._cache.put(variants, rows, found)
        last = last.to(batch.input_ids.device)
        signals = Signals(last_hidden_state=last)
        return with_head(teacher, signals, last, batch, few_shapes=True) if "head" in self._teacher_needs else signals

    def _likeliest(
        self, cache: TeacherCache, variants: list[int], rows: list[int], batch: Batch, top_k: int, temperature: float
    ) -> Signals:
        """Kept at the places where the losses ask for them, which are the same whenever a row comes again."""
        kept = cache.get(variants, rows)
        if kept is None:
            found = packed(forward_masked_lm(self._teacher[0], batch, HEAD, few_shapes=True), top_k, temperature)
            whole = found.new_zeros(*batch.mask.shape, found.shape[-1])
            whole[batch.head_positions] = found
            kept = cache.put(variants, rows, whole)
        kept = kept.to(batch.input_ids.device)
        return Signals(likeliest=unpacked(kept[batch.head_positions], temperature))


def _frozen(teacher: PreTrainedModel) -> PreTrainedModel:
    teacher.train(False)
    teacher.requires_grad_(False)
    return teacher


def _unique(names: Iterable[str]) -> Iterator[str]:
    """Names with a number behind the second and later use, so that each loss is logged by itself."""
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}_{seen[name]}"
