"""What compressors measure a model on: batches with labels, its loss on them, its score on held-out text."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from affinage.data.rows import PackedRows, to_batch
from affinage.data.taught import TaughtRows, to_task_batch
from affinage.distillation.objective import head_of
from affinage.losses.task import LabelLoss
from affinage.models.encoder import forward_masked_lm
from affinage.models.task_encoder import forward_task
from affinage.signals import IGNORED, Batch, Signals

_ROWS = 16
"""in a batch"""
_HELD_OUT = 400
"""rows of held-out text that are scored"""
_LOGITS, _HEAD = frozenset({"logits"}), frozenset({"head"})


def calibration_batches(rows: TaughtRows | PackedRows, count: int, *, seed: int) -> list[Batch]:
    """`count` rows, or all there are, drawn by the seed; in batches of 16, of like length."""
    drawn = np.random.default_rng(seed).permutation(len(rows))[:count].tolist()
    if isinstance(rows, TaughtRows):
        drawn.sort(key=lambda i: len(rows.rows[i].input_ids))
    parts = [drawn[start : start + _ROWS] for start in range(0, len(drawn), _ROWS)]
    if isinstance(rows, TaughtRows):
        return [to_task_batch(**rows.collate([rows[i] for i in part])) for part in parts]
    return [to_batch(**rows.collate([rows[(0, i)] for i in part])) for part in parts]


def task_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """() the mean loss of a task model against the labels."""
    head = head_of(model)
    assert head is not None
    return LabelLoss(head)(forward_task(model, batch, _LOGITS), Signals(), batch).mean


def masked_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """() the mean cross-entropy of hidden tokens."""
    logits, labels = _hidden_tokens(model, batch)
    return cross_entropy(logits, labels)


@torch.no_grad()
def found_words(model: PreTrainedModel, held_out: PackedRows) -> float:
    """Share of the hidden tokens of held-out text, the first rows of it, that the model finds."""
    right = total = 0
    for batch in _held_out(held_out):
        logits, labels = _hidden_tokens(model, batch.to(model.device))
        right += int((logits.argmax(-1) == labels).sum())
        total += len(labels)
    return right / max(total, 1)


def _held_out(rows: PackedRows) -> Sequence[Batch]:
    size = min(len(rows), _HELD_OUT)
    parts = [range(start, min(start + _ROWS, size)) for start in range(0, size, _ROWS)]
    return [to_batch(**rows.collate([rows[(0, i)] for i in part])) for part in parts]


def _hidden_tokens(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """(N, V) logits and (N,) labels of the positions that have one."""
    assert batch.labels is not None
    selected = batch.labels != IGNORED
    chosen = Batch(batch.input_ids, batch.mask, batch.segments, batch.token_type_ids, batch.labels, selected=selected)
    signals = forward_masked_lm(model, chosen, _HEAD)
    assert signals.head_input is not None and signals.head_weight is not None
    logits = signals.head_input @ signals.head_weight.t()
    return logits if signals.head_bias is None else logits + signals.head_bias, batch.labels[selected]
