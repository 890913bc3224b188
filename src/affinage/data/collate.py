"""How encoded rows and their targets become one padded batch of tensors."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from affinage.data.encoding import Row
from affinage.data.features import Target
from affinage.signals import IGNORED


def pad_rows(
    rows: Sequence[Row], *, pad_id: int, with_types: bool = False, labels: Sequence[Target] | None = None
) -> dict[str, Tensor]:
    """One batch, padded on the right to its longest row: the keyword arguments of a transformers model.

    Gives `input_ids`, `attention_mask` (B, T), `token_type_ids` (B, T) if `with_types` (only for models that have
    them), and of `labels`: `labels` (B,), (B, T) or, where several classes may hold, (B, C), float32 where the targets
    are no whole numbers; or `start_positions` and `end_positions` (B,).
    """
    length = max(len(row.input_ids) for row in rows)
    batch = {
        "input_ids": _padded([row.input_ids for row in rows], length, pad_id),
        "attention_mask": _padded([np.ones(len(row.input_ids), np.int64) for row in rows], length, 0),
    }
    if with_types:
        batch["token_type_ids"] = _padded([row.type_ids for row in rows], length, 0)
    if labels is None:
        return batch
    if isinstance(labels[0], float) or getattr(labels[0], "dtype", None) == np.float32:
        return {**batch, "labels": torch.from_numpy(np.stack([np.asarray(label, np.float32) for label in labels]))}
    arrays = [np.asarray(label, dtype=np.int64) for label in labels]
    if isinstance(labels[0], tuple):
        starts_ends = torch.from_numpy(np.stack(arrays))
        return {**batch, "start_positions": starts_ends[:, 0], "end_positions": starts_ends[:, 1]}
    if arrays[0].ndim:
        return {**batch, "labels": _padded(arrays, length, IGNORED)}
    return {**batch, "labels": torch.from_numpy(np.stack(arrays))}


def _padded(rows: Sequence[np.ndarray], length: int, filler: int) -> Tensor:
    """(B, length) int64."""
    out = np.full((len(rows), length), filler, np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out)
