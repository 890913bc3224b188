"""Whether a masked language model knows a text better than who only knows how frequent each token is."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from affinage.data.rows import PackedRows, to_batch
from affinage.losses.labels import MaskedLanguageModel
from affinage.models.encoder import forward_masked_lm
from affinage.signals import IGNORED, Signals

ROWS = 64
"""Held-out rows looked at."""
MIN_TOKENS = 300
"""With fewer hidden tokens, chance and knowledge are not told apart."""
COUNTED = 2_000_000
"""Tokens of the text whose frequencies are counted."""
_BATCH = 4
_LOSS = MaskedLanguageModel()


class Knowledge(NamedTuple):
    """Mean cross-entropies of the hidden tokens, in nats."""

    loss: float
    chance: float
    tokens: int


@torch.no_grad()
def knowledge(model: PreTrainedModel, held_out: PackedRows, seen: NDArray[np.int32]) -> Knowledge | None:
    """The model's loss on the first held-out rows, and that of the frequencies in `seen` (N,), or of a fair die.

    None where the rows hide too few tokens to tell.
    """
    count = min(ROWS, len(held_out))
    total, labels = 0.0, []
    was_training = model.training
    model.eval()
    for start in range(0, count, _BATCH):
        inputs = held_out.collate([held_out[(0, row)] for row in range(start, min(start + _BATCH, count))])
        hidden = inputs["labels"] != IGNORED
        batch = replace(to_batch(**inputs), selected=hidden).to(model.device)
        total += float(_LOSS(forward_masked_lm(model, batch, _LOSS.needs), Signals(), batch).total)
        labels.append(inputs["labels"][hidden].numpy())
    model.train(was_training)
    found = np.concatenate(labels)
    if len(found) < MIN_TOKENS:
        return None
    return Knowledge(total / len(found), unigram_loss(found, seen, model.config.vocab_size), len(found))


def unigram_loss(labels: NDArray[np.int64], seen: NDArray[np.int32], vocabulary: int) -> float:
    """-mean log((n_label + 1) / (N + V)), n counted in the first `COUNTED` tokens of `seen`; at most log V."""
    counts = np.bincount(seen[:COUNTED], minlength=vocabulary) + 1
    return min(math.log(vocabulary), float(-np.log(counts[labels] / counts.sum()).mean()))
