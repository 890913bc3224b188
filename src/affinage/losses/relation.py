"""Losses between how the tokens of a text relate to one another in a layer of teacher and student (MiniLM)."""

from dataclasses import dataclass
from math import sqrt
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import log_softmax

from affinage.errors import InputError
from affinage.losses.attention import seen_tokens
from affinage.losses.base import DistillationLoss, Shape, distillation_losses
from affinage.signals import Batch, Signals, Sum

CHUNK_ENTRIES = 8_000_000
"""Relations held at a time (rows x heads x tokens x tokens), one row at least: 32 MB in float32."""


@dataclass(frozen=True)
class _OfOneLayer:
    """A loss between one layer of the student, its last unless it is named, and one of the teacher's, summed over real
    tokens.
    """

    teacher_layer: Annotated[int, Field(ge=0)] | None = None
    """counted from 0; None: its last"""
    student_layer: Annotated[int, Field(ge=0)] | None = None

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    teacher_needs: ClassVar[frozenset[str]]

    def positions(self, batch: Batch) -> Tensor:
        return batch.mask

    def build(self, student: Shape, teacher: Shape) -> DistillationLoss:
        """Itself. Raises: InputError where there is no such layer, or the heads do not fit."""
        for whose, layer, shape in (("teacher", self.teacher_layer, teacher), ("student", self.student_layer, student)):
            if layer is not None and layer >= shape.layers:
                raise InputError(
                    f"loss '{self.name}': {whose}_layer {layer} is not there; the {whose} has layers 0 to "
                    f"{shape.layers - 1}"
                )
        self.check_heads(student, teacher)
        return self

    def check_heads(self, student: Shape, teacher: Shape) -> None:
        """Raises: InputError where the heads cannot be compared."""
        raise NotImplementedError

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        raise NotImplementedError

    def of_teacher(self, signals: Signals, part: Literal["queries", "keys", "values"]) -> Tensor:
        """(B, A, T, D) of the teacher's layer."""
        return _layers(signals, part, self.name)[-1 if self.teacher_layer is None else self.teacher_layer]

    def of_student(self, signals: Signals, part: Literal["queries", "keys", "values"]) -> Tensor:
        """(B, A, T, D) of the student's layer."""
        return _layers(signals, part, self.name)[-1 if self.student_layer is None else self.student_layer]


@distillation_losses.register("attention_kl", source="Wang et al. 2020 (MiniLM), arXiv:2002.10957, section 3.1")
@dataclass(frozen=True)
class AttentionKL(_OfOneLayer):
    """KL from teacher to student of one layer's attention, mean over heads and real tokens; 0 at agreement.

    softmax(q k^T / sqrt(D)), head by head, among the tokens of the same text.
    """

    name: ClassVar[str] = "attention_kl"
    needs: ClassVar[frozenset[str]] = frozenset({"queries", "keys"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset({"queries", "keys"})

    def check_heads(self, student: Shape, teacher: Shape) -> None:
        if student.heads != teacher.heads:
            raise InputError(
                f"loss '{self.name}' compares head with head: the student has {student.heads}, the teacher "
                f"{teacher.heads}; set student.num_attention_heads={teacher.heads}, or take recipe 'minilmv2', whose "
                "relations need not have the models' heads"
            )

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        ours = self.of_student(student, "queries"), self.of_student(student, "keys")
        theirs = self.of_teacher(teacher, "queries"), self.of_teacher(teacher, "keys")
        return Sum(relation_kl(ours, theirs, seen_tokens(batch)), batch.mask.sum())


@dataclass(frozen=True)
class _RelationKL(_OfOneLayer):
    """Relations softmax(x x^T / sqrt(D)) of one kind of vectors x, whose heads are joined and cut anew into `heads`."""

    heads: Annotated[int, Field(gt=0)] | None = None
    """relation heads, which must divide both widths; None: the attention heads, which must then be equally many"""

    of: ClassVar[Literal["queries", "keys", "values"]]

    def check_heads(self, student: Shape, teacher: Shape) -> None:
        if self.heads is None and student.heads != teacher.heads:
            raise InputError(
                f"loss '{self.name}' compares head with head: the student has {student.heads}, the teacher "
                f"{teacher.heads}; give a number of relation heads that divides both widths, {student.width} and "
                f"{teacher.width}, as params: {{heads: …}}"
            )
        for whose, width in (("student", student.width), ("teacher", teacher.width)):
            if self.heads is not None and width % self.heads:
                raise InputError(
                    f"loss '{self.name}': the {whose}'s width {width} is no multiple of {self.heads} relation heads; "
                    "give another number as params: {heads: …}"
                )

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> Sum:
        ours = self._cut(self.of_student(student, self.of))
        theirs = self._cut(self.of_teacher(teacher, self.of))
        return Sum(relation_kl((ours, ours), (theirs, theirs), seen_tokens(batch)), batch.mask.sum())

    def _cut(self, vectors: Tensor) -> Tensor:
        """(B, A, T, D) -> (B, heads, T, A * D / heads)."""
        if self.heads is None:
            return vectors
        rows, _, tokens, _ = vectors.shape
        return vectors.transpose(1, 2).reshape(rows, tokens, self.heads, -1).transpose(1, 2)


@distillation_losses.register("query_relation_kl", source="Wang et al. 2021 (MiniLMv2), arXiv:2012.15828, section 3.1")
@dataclass(frozen=True)
class QueryRelationKL(_RelationKL):
    """KL from teacher to student of query-query relations, mean over heads and real tokens; 0 at agreement."""

    name: ClassVar[str] = "query_relation_kl"
    of: ClassVar[Literal["queries", "keys", "values"]] = "queries"
    needs: ClassVar[frozenset[str]] = frozenset({"queries"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset({"queries"})


@distillation_losses.register("key_relation_kl", source="Wang et al. 2021 (MiniLMv2), arXiv:2012.15828, section 3.1")
@dataclass(frozen=True)
class KeyRelationKL(_RelationKL):
    """KL from teacher to student of key-key relations, mean over heads and real tokens; 0 at agreement."""

    name: ClassVar[str] = "key_relation_kl"
    of: ClassVar[Literal["queries", "keys", "values"]] = "keys"
    needs: ClassVar[frozenset[str]] = frozenset({"keys"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset({"keys"})


@distillation_losses.register(
    "value_relation_kl", source="Wang et al. 2020 (MiniLM), arXiv:2002.10957, section 3.2, and 2012.15828"
)
@dataclass(frozen=True)
class ValueRelationKL(_RelationKL):
    """KL from teacher to student of value-value relations, mean over heads and real tokens; 0 at agreement."""

    name: ClassVar[str] = "value_relation_kl"
    of: ClassVar[Literal["queries", "keys", "values"]] = "values"
    needs: ClassVar[frozenset[str]] = frozenset({"values"})
    teacher_needs: ClassVar[frozenset[str]] = frozenset({"values"})


def relation_kl(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
    """() sum over tokens of the mean over heads of KL(p || q), p = softmax(a b^T / sqrt(D)) of `theirs`, q of `ours`.

    `ours` and `theirs`: a and b, (B, A, T, D); D may differ between the two. `seen` (B, T, T): which tokens (last) a
    token relates to; a token that sees none is not counted. The gradient reaches `ours` only.
    """
    total: Tensor = _RelationKLs.apply(*ours, *(part.detach() for part in theirs), seen)  # type: ignore[no-untyped-call]
    return total


class _RelationKLs(torch.autograd.Function):
    """Forward computes the sum and its gradient, q - p, a few rows at a time: (B, A, T, T) never exists whole."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, their_left: Tensor, their_right: Tensor, seen: Tensor) -> Tensor:
        heads, tokens = left.shape[1:3]
        wanted = any(ctx.needs_input_grad[:2])
        grads = [torch.zeros_like(t, dtype=torch.float32) for t in (left, right)] if wanted else []
        total = torch.zeros((), device=left.device)
        step = max(1, CHUNK_ENTRIES // (heads * tokens * tokens))
        # In float32 whatever the models compute in: a small difference of two distributions would drown in bfloat16.
        with torch.autocast(left.device.type, enabled=False):
            for start in range(0, len(left), step):
                part = slice(start, start + step)
                a, b = left[part].float(), right[part].float()
                log_q = _log_relations(a, b, seen[part])
                log_p = _log_relations(their_left[part].float(), their_right[part].float(), seen[part])
                p = log_p.exp()
                share = seen[part].any(-1)[:, None, :, None] / heads
                total += (p * (log_p - log_q) * share).sum()
                if wanted:
                    slope = (log_q.exp() - p) * (share / sqrt(a.shape[-1]))
                    grads[0][part] = slope @ b
                    grads[1][part] = slope.transpose(-1, -2) @ a
        ctx.save_for_backward(*(grad.to(left.dtype) for grad in grads))
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        scale = upstream[0]
        return *(scale.to(grad.dtype) * grad for grad in ctx.saved_tensors), None, None, None


def _log_relations(a: Tensor, b: Tensor, seen: Tensor) -> Tensor:
    """(B, A, T, T) log softmax(a b^T / sqrt(D)) over the tokens seen; elsewhere very small, but finite."""
    scores = (a @ b.transpose(-1, -2)) / sqrt(a.shape[-1])
    return log_softmax(scores.masked_fill(~seen[:, None], torch.finfo(scores.dtype).min), -1)


def _layers(signals: Signals, part: Literal["queries", "keys", "values"], name: str) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] | None = getattr(signals, part)
    if found is None:
        raise ValueError(f"{name} needs {part} of student and teacher")
    return found
