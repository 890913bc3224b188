"""A loss on the tokens that the teacher finds likeliest, and what has to be kept of its logits for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import log_softmax

from affinage.losses.base import DistillationLoss, distillation_losses
from affinage.losses.soft_labels import SoftLabels
from affinage.losses.teacher_logits import Projected
from affinage.losses.vocabulary import CHUNK_ENTRIES
from affinage.signals import Likeliest, Signals

_DIGIT = 2048
"""Up to it every whole number is one in float16: token ids are kept as two of them."""


@distillation_losses.register(
    "top_k_soft_kl", source="original: Hinton et al. 2015, arXiv:1503.02531, over k tokens and all others as one"
)
@dataclass(frozen=True)
class TopKSoftKL(SoftLabels):
    """soft_kl where all but the teacher's `top_k` likeliest tokens are taken together as one; 0 at agreement.

    Never above soft_kl, and equal to it where `top_k` leaves a single token out.
    """

    top_k: Annotated[int, Field(ge=1)] = 64

    def per_token(self, student: Tensor, teacher: Tensor) -> Tensor:
        log_q, ids, log_p, rest_p = self._parted(student, teacher)
        apart = (log_p.exp() * (log_p - log_q.gather(-1, ids))).sum(-1)
        return self.temperature**2 * (apart + rest_p.exp() * (rest_p - _without(log_q, ids)))

    def of_logits(self, student: Tensor, teacher: Tensor | None, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """In closed form: the gradient is tau * (q - p), where p gives the others their shares by q."""
        assert teacher is not None
        log_q, ids, log_p, rest_p = self._parted(student, teacher)
        best_q, rest_q = log_q.gather(-1, ids), _without(log_q, ids)
        p = log_p.exp()
        value = self.temperature**2 * (
            (p * (log_p - best_q)).sum() + torch.linalg.vecdot(rest_p.exp(), rest_p - rest_q)
        )
        slope = log_q.exp_().mul_(1 - (rest_p - rest_q).exp()[:, None]).scatter_(-1, ids, best_q.exp() - p)
        return value, slope.mul_(self.temperature)

    def _parted(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(n, V) log q; (n, k) ids of the likeliest and their log p; (n,) log p of all others together."""
        log_p = log_softmax(teacher / self.temperature, -1)
        best = log_p.topk(min(self.top_k, log_p.shape[-1] - 1))
        return log_softmax(student / self.temperature, -1), best.indices, best.values, _without(log_p, best.indices)


def likeliest_suffice(losses: Sequence[DistillationLoss], vocabulary: int) -> tuple[int, float] | None:
    """How many tokens at what temperature, where these are all that the losses need of the teacher; else None."""
    asking = [loss for loss in losses if loss.teacher_needs]
    given = [(min(loss.top_k, vocabulary - 1), loss.temperature) for loss in asking if isinstance(loss, TopKSoftKL)]
    if not given or len(given) < len(asking) or len({temperature for _, temperature in given}) > 1:
        return None
    return max(given)


def width_of(top_k: int) -> int:
    """Numbers that `packed` keeps for a token."""
    return 3 * top_k + 1


def packed(teacher: Signals, top_k: int, temperature: float) -> Tensor:
    """(N, 3 k + 1) float32: the likeliest tokens' logits, their ids in two digits, and the rest, at N head rows."""
    assert teacher.head_input is not None and teacher.head_weight is not None
    kind = teacher.head_input.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else teacher.head_input.dtype
    told, step = Projected(teacher, dtype), max(1, CHUNK_ENTRIES // len(teacher.head_weight))
    parts = []
    with torch.autocast(kind, enabled=False):
        for start in range(0, len(teacher.head_input), step):
            logits = told.logits(slice(start, start + step)).float() + told.bias
            best = logits.topk(top_k)
            rest = temperature * _without(logits / temperature, best.indices)
            digits = (best.indices // _DIGIT, best.indices % _DIGIT)
            parts.append(torch.cat([best.values, *digits, rest[:, None]], -1))
    whole = torch.cat(parts) if parts else teacher.head_input.new_zeros(0, width_of(top_k))
    return whole[: len(teacher.head_input)]


def unpacked(kept: Tensor, temperature: float) -> Likeliest:
    """What `packed` made (N, 3 k + 1) of."""
    logits, high, low = kept[:, :-1].chunk(3, -1)
    return Likeliest((high * _DIGIT + low).long(), logits, kept[:, -1], temperature)


def _without(logits: Tensor, ids: Tensor) -> Tensor:
    """(n,) log of the sum of exp of logits (n, V) over all but `ids` (n, k)."""
    return logits.scatter(-1, ids, -torch.inf).logsumexp(-1)
