"""The part of a task model that works without an encoder: frozen embeddings, and the head on top of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.errors import InputError
from affinage.models.checkpoint import Kind, load_task_model
from affinage.models.layout import LAYOUTS, layout_of


def load_frozen_embeddings(
    name_or_path: str | Path,
    kind: Kind,
    *,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    dropout: float | None = None,
) -> PreTrainedModel:
    """The stock model of a task without its encoder's layers, only its head to be trained, in eval mode.

    `labels`, `seed` and `dropout` as for `load_task_model`, so that the head starts as that of the whole model does.
    Where a text has one answer it reads the mean over the real tokens, which in a saved model is not noted: load it
    with this again.

    Raises: InputError as `load_task_model`, and for an architecture that is not known.
    """
    model = load_task_model(name_or_path, kind, labels=labels, seed=seed, dropout=dropout)
    remove_encoder_(model)
    if kind not in ("token", "span"):
        read_mean_(model)
    return model


def remove_encoder_(model: PreTrainedModel) -> None:
    """Take every encoder layer out of a task model and freeze its embeddings.

    What is neither (BERT's pooler, DistilBERT's pre-classifier, the output layer) belongs to the head.

    Raises: InputError for an architecture whose parts are not known one by one.
    """
    layout = layout_of(model.config)
    if not layout.whole:
        raise InputError(
            f"architecture '{model.config.model_type}': no baseline without an encoder is made of it; give a model of "
            f"{', '.join(sorted(name for name, known in LAYOUTS.items() if known.whole))}"
        )
    layers = model.get_submodule(layout.layers)
    assert isinstance(layers, nn.ModuleList)
    del layers[:]
    setattr(model.config, layout.num_hidden_layers, 0)
    model.get_submodule(layout.word_embeddings.rpartition(".")[0]).requires_grad_(False)


def read_mean_(model: PreTrainedModel) -> None:
    """Give the head the mean over the real tokens where it reads the first token's vector.

    Without an encoder that vector is the same for every text.
    """
    layout = layout_of(model.config)
    mask: Tensor | None = None

    def note_mask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal mask
        mask = kwargs.get("attention_mask")

    def replace_first(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        output.last_hidden_state = with_mean_first(output.last_hidden_state, mask)
        return output

    # The encoder sees the mask in a form that depends on the attention kernel; the model around it has it as given.
    model.get_submodule(layout.base).register_forward_pre_hook(note_mask, with_kwargs=True)
    model.get_submodule(layout.layers.rpartition(".")[0]).register_forward_hook(replace_first)


def with_mean_first(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """(B, T, H) with the mean over the real tokens, special ones included, in place of the first token's vector.

    `mask`: (B, T), 1 for real tokens; None where all are.
    """
    weights = hidden.new_ones(hidden.shape[:2]) if mask is None else mask.to(hidden.dtype)
    mean = (hidden * weights[..., None]).sum(dim=1) / weights.sum(dim=1, keepdim=True)
    return torch.cat([mean[:, None], hidden[:, 1:]], dim=1)
