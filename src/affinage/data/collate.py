"""How encoded rows and their targets become one padded batch of tensors."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from affinage.data.encoding import Row
from affinage.data.features import Target
from affinage.data.padding import padded, row_inputs
from affinage.signals import IGNORED


def pad_rows(
    rows: Sequence[Row],
    *,
    pad_id: int,
    with_types: bool = False,
    labels: Sequence[Target] | None = None,
    length: int | None = None,
) -> dict[str, Tensor]:
    """One batch, padded on the right to its longest row or to `length`: the keyword arguments of a transformers model.

    Gives `input_ids`, `attention_mask` (B, T), `token_type_ids` (B, T) if `with_types` (only for models that have
    them), and of `labels`: `labels` (B,), (B, T) or, where several classes may hold, (B, C), float32 where the targets
    are no whole numbers; or `start_positions` and `end_positions` (B,).
    """
    arrays = row_inputs(rows, pad_id=pad_id, with_types=with_types, length=length)
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if labels is None:
        return batch
    if isinstance(labels[0], float) or getattr(labels[0], "dtype", None) == np.float32:
        return {**batch, "labels": torch.from_numpy(np.stack([np.asarray(label, np.float32) for label in labels]))}
    targets = [np.asarray(label, dtype=np.int64) for label in labels]
    if isinstance(labels[0], tuple):
        starts_ends = torch.from_numpy(np.stack(targets))
        return {**batch, "start_positions": starts_ends[:, 0], "end_positions": starts_ends[:, 1]}
    if targets[0].ndim:
        length = batch["input_ids"].shape[1]
        return {**batch, "labels": torch.from_numpy(padded(targets, length, IGNORED))}
    return {**batch, "labels": torch.from_numpy(np.stack(targets))}
