"""What several teachers say of a task, as one: the mean of their probabilities, or of their values."""

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

from affinage.losses.logits import answer_places
from affinage.signals import Batch, Head


def mean_logits(teachers: Sequence[Tensor], head: Head, batch: Batch) -> Tensor:
    """Logits of the mean over teachers of their probabilities at temperature 1, (B, C) or (B, T, C) as each one's.

    One teacher's are returned as they are. A value is averaged. A span's probabilities are those over the tokens where
    an answer may be (`losses.logits.answer_places`).
    """
    if len(teachers) == 1:
        return teachers[0]
    logits = torch.stack([teacher.float() for teacher in teachers])
    share = log(len(teachers))
    if head == "regression":
        return logits.mean(0)
    if head == "multi_label":
        return logsigmoid(logits).logsumexp(0) - logsigmoid(-logits).logsumexp(0)
    if head == "span":
        outside = ~answer_places(batch)[None, :, :, None]
        logs = log_softmax(logits.masked_fill(outside, torch.finfo(logits.dtype).min), 2)
        return (logs.logsumexp(0) - share).masked_fill(outside[0], 0)
    return log_softmax(logits, -1).logsumexp(0) - share
