"""One forward pass of a stock encoder with the head of a task: Batch in, Signals out, its logits among them."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from affinage.models.encoder import forward_masked_lm, heads_heard
from affinage.models.layout import layout_of
from affinage.models.packed import NoCache
from affinage.signals import Batch, Signals


def forward_task(model: PreTrainedModel, batch: Batch, needs: frozenset[str]) -> Signals:
    """The signals `needs` of a task model: "logits", and what `forward_masked_lm` gives, the vocabulary head aside.

    The head is computed only where "logits" is asked for. One text, or pair, a row.
    """
    if "logits" not in needs:
        return forward_masked_lm(model, batch, needs)
    layout = layout_of(model.config)
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": batch.mask.long()}
    if batch.token_type_ids is not None:
        inputs["token_type_ids"] = batch.token_type_ids
    if layout.keeps_cache:
        inputs["cache"] = NoCache()
    encoded: list[Any] = []
    hook = model.get_submodule(layout.base).register_forward_hook(lambda _, __, output: encoded.append(output))
    with_hidden = "hidden_states" in needs
    try:
        with heads_heard(model, layout, needs) as heard:
            output = model(**inputs, output_hidden_states=with_hidden)
    finally:
        hook.remove()
    spans = "start_logits" in output
    logits: Tensor = torch.stack([output.start_logits, output.end_logits], -1) if spans else output.logits
    signals = Signals(
        logits=logits,
        hidden_states=tuple(output.hidden_states) if with_hidden else None,
        last_hidden_state=encoded[0][0] if "last_hidden_state" in needs else None,
    )
    parts: dict[str, Any] = {name: tuple(tensors) for name, tensors in heard.items()}
    return replace(signals, **parts)
