"""How each architecture is told that the texts of a packed row do not see each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.models.attention import BOOLEAN_MASKS
from affinage.models.layout import layout_of
from affinage.signals import Batch


def attention_mask(model: PreTrainedModel, batch: Batch) -> Tensor | dict[str, Tensor]:
    """What the base takes: (B, T) for rows of one text, or where its modules get more by `texts_kept_apart`;
    (B, 1, T, T) that keeps the texts of a packed row apart, or one for each kind of attention.
    """
    where = layout_of(model.config).packed_mask
    if batch.segments is None or where in ("encoder", "layers"):
        return batch.mask.long()
    same = _same_text(batch.segments)
    if where == "base":
        return _as_taken(model, same)
    index = torch.arange(same.shape[1], device=same.device)
    near = (index[:, None] - index).abs() <= model.config.sliding_window
    return {"full_attention": _as_taken(model, same), "sliding_attention": _as_taken(model, same & near)}


@contextmanager
def texts_kept_apart(model: PreTrainedModel, batch: Batch) -> Iterator[None]:
    """Where the base takes (B, T) alone: hands the mask of packed rows to the modules that take (B, T, T)."""
    layout = layout_of(model.config)
    if batch.segments is None or layout.packed_mask in ("base", "kinds"):
        yield
        return
    same = _same_text(batch.segments)

    def give(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0], same, *args[2:])

    layers = model.get_submodule(layout.layers)
    around = model.get_submodule(layout.layers.rpartition(".")[0])
    takers = list(layers.children()) if layout.packed_mask == "layers" else [around]
    hooks = [module.register_forward_pre_hook(give) for module in takers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class NoCache:
    """Stands where FlauBERT wants a cache of keys and values: keeps none.

    Stock code makes one for every forward pass, and with `pre_norm` cannot use what it makes.
    """

    def get_seq_length(self) -> int:
        return 0

    def __getitem__(self, layer: int) -> None:
        return None

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        return keys, values


def without_cache_(model: PreTrainedModel) -> None:
    """Give the base `NoCache` whenever it is called without a cache, where the architecture takes one."""
    layout = layout_of(model.config)
    if layout.keeps_cache:
        base = model.get_submodule(layout.base)
        base.register_forward_pre_hook(_with_no_cache, with_kwargs=True)


def _with_no_cache(
    module: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, inputs if inputs.get("cache") is not None else {**inputs, "cache": NoCache()}


def _same_text(segments: Tensor) -> Tensor:
    """(B, T, T) bool. Padding is segment 0 and sees padding: a row that may look at nothing would be NaN."""
    same: Tensor = segments[:, :, None] == segments[:, None, :]
    return same


def _as_taken(model: PreTrainedModel, seen: Tensor) -> Tensor:
    """(B, 1, T, T): bool, or added to the scores, as the attention kernel takes it."""
    if model.config._attn_implementation in BOOLEAN_MASKS:
        return seen[:, None]
    dtype = next(model.parameters()).dtype
    return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]
