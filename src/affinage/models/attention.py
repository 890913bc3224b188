"""Attention for training on a CPU, where torch's own is slow: with dropout, and its backward pass in bfloat16."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from affinage.models.dropout import dropped

QUICK = "affinage"
"""Name of the implementation in transformers' registry; never stored with a model."""
BOOLEAN_MASKS = ("sdpa", QUICK)
"""Implementations that take a mask as booleans."""


def quicken_attention_(model: PreTrainedModel) -> None:
    """Let a model on SDPA compute attention by `quick_attention`; other implementations stay as they are."""
    if model.config._attn_implementation == "sdpa":
        model.config._attn_implementation = QUICK


def quick_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """(B, T, A, D) of queries (B, A, T, D): softmax(query keyᵀ scaling + mask), dropped if asked for, times value.

    On other devices, with anything else to heed (`kwargs`), and where torch's fused kernel is quick, transformers' SDPA
    does it. On a CPU torch has none with dropout (it casts bfloat16 to float32 and draws one random number an entry);
    and the one without takes three to six times as long backwards in bfloat16, for rows of up to 256 tokens.
    """
    known = kwargs.get("position_bias") is None and kwargs.get("cache") is None and not kwargs.get("is_causal")
    slow = dropout > 0 or (query.dtype == torch.bfloat16 and query.requires_grad)
    if not slow or query.device.type != "cpu" or not known or getattr(module, "is_causal", False):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    served = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, served), repeat_kv(value, served)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scale, key.transpose(-1, -2))
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.softmax(scores, -1)
    if dropout > 0:
        weights = dropped(weights, dropout)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


AttentionInterface.register(QUICK, quick_attention)
AttentionMaskInterface.register(QUICK, sdpa_mask)
