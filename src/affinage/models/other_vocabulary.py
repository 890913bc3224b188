"""A model with the pieces of another tokenizer, all of which are pieces of its own too."""

import copy

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from affinage.errors import InputError
from affinage.models.layout import layout_of
from affinage.models.replacing import is_tied, replace_embedding_, word_embedding_path


def with_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, other: PreTrainedTokenizerFast, *, rows: int
) -> PreTrainedModel:
    """A copy whose embedding table has `rows` rows, each piece of `other` with the weights it has under `tokenizer`.

    So a teacher reads the ids of a student whose vocabulary was trimmed. Its vocabulary head follows.

    Raises: InputError where a piece is unknown to `tokenizer`, or the model's table is not a plain one.
    """
    mine, theirs = tokenizer.get_vocab(), other.get_vocab()
    unknown = next((piece for piece in theirs if piece not in mine), None)
    table = model.get_submodule(word_embedding_path(model))
    path = layout_of(model.config).decoder
    own_head = not is_tied(model) and any(name == path for name, _ in model.named_modules())
    if unknown is not None or not isinstance(table, nn.Embedding) or own_head:
        why = "its vocabulary head has weights of its own" if own_head else "its embedding table is compressed already"
        raise InputError(
            "recovery compares with the uncompressed model, which cannot be given the new vocabulary: "
            + (f"it has no piece '{unknown}'" if unknown is not None else why)
        )
    at = torch.full((rows,), int(model.config.pad_token_id or 0))
    for piece, number in theirs.items():
        at[number] = mine[piece]
    made = copy.deepcopy(model)
    new = nn.Embedding(rows, table.embedding_dim, padding_idx=other.pad_token_id)
    new.weight.data.copy_(table.weight.detach()[at])
    if is_tied(made):
        bias = getattr(made.get_submodule(path), "bias", None)
        if bias is not None:
            bias.data = bias.detach()[at]
    replace_embedding_(made, new)
    made.config.vocab_size = rows
    return made.eval()
