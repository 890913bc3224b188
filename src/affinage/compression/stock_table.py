"""The word embedding table of a model, where it is a stock one that a method may replace."""

from typing import ClassVar

from torch import nn
from transformers import PreTrainedModel

from affinage.compression.base import Side
from affinage.errors import InputError
from affinage.models.replacing import word_embedding_path


class OnTable:
    """What the methods on the table alone say of the parts that they replace."""

    works_on: ClassVar[frozenset[Side]] = frozenset({"embeddings"})
    uses_up: ClassVar[frozenset[Side]] = frozenset({"embeddings"})


def stock_table(model: PreTrainedModel, *, method: str) -> nn.Embedding:
    """Raises: InputError where it is compressed already."""
    table = model.get_submodule(word_embedding_path(model))
    if not isinstance(table, nn.Embedding):
        raise InputError(f"{method}: the model's embeddings are compressed already; leave one of the two out")
    return table
