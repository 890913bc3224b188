"""How well a masked language model knows held-out text."""

import math

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from affinage.data.tokens import TokenStore
from affinage.models.encoder import forward_masked_lm
from affinage.signals import Batch

_ROWS = 64


@torch.inference_mode()
def pseudo_perplexity(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, store: TokenStore, *, texts: int = 32, tokens: int = 62
) -> float:
    """exp of the mean negative log-probability of each token with that token alone masked.

    Salazar et al. 2020, arXiv:1910.14659, equations 1 and 3, over the first `texts` texts spread evenly over `store`,
    each cut to `tokens`.
    """
    mask_id = tokenizer.mask_token_id
    chosen = np.unique(np.linspace(0, len(store) - 1, min(texts, len(store))).astype(int))
    total, count = 0.0, 0
    for text in chosen:
        begin = int(store.starts[text])
        body = store.ids[begin : min(int(store.starts[text + 1]), begin + tokens)].astype(np.int64)
        row = torch.from_numpy(np.concatenate([[tokenizer.cls_token_id], body, [tokenizer.sep_token_id]]))
        for start in range(0, len(body), _ROWS):
            positions = torch.arange(start, min(start + _ROWS, len(body))) + 1
            ids = row.repeat(len(positions), 1)
            lines = torch.arange(len(positions))
            ids[lines, positions] = mask_id
            selected = torch.zeros_like(ids, dtype=torch.bool)
            selected[lines, positions] = True
            batch = Batch(input_ids=ids, mask=torch.ones_like(selected), selected=selected).to(model.device)
            signals = forward_masked_lm(model, batch, frozenset({"head"}))
            assert signals.head_input is not None and signals.head_weight is not None
            logits = torch.nn.functional.linear(signals.head_input, signals.head_weight, signals.head_bias).float()
            truth = row[positions].to(logits.device)
            total += float(torch.nn.functional.cross_entropy(logits, truth, reduction="sum"))
            count += len(positions)
    return math.exp(total / max(count, 1))
