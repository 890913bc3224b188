"""Which linear maps and tables of a model are quantized, and how they are replaced."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from affinage.compression.base import Form
from affinage.errors import InputError
from affinage.models.layout import layout_of
from affinage.models.modules.base import Compressed
from affinage.models.modules.matrix import Inputs
from affinage.models.replacing import linears, replace_embedding_, replace_module_, word_embedding_path

log = logging.getLogger(__name__)

_WHOLE: frozenset[Form] = frozenset({"dense", "sparse", "uneven", "factored", "shared", "stock-albert"})
TAKES: frozenset[Form] = _WHOLE | {"packed-table"}
"""what a method on maps and tables takes: a table that is packed already stays as it is"""
TABLE_TAKES: frozenset[Form] = _WHOLE
LEAVES: frozenset[Form] = frozenset({"packed", "packed-table"})
TABLE_LEAVES: frozenset[Form] = frozenset({"packed-table"})


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which parts of a model are quantized."""

    encoder: bool = True
    """the linear maps of the layers"""
    embeddings: bool = True
    """the word embeddings, with the vocabulary projection that is tied to them, and the position embeddings"""
    heads: bool = True
    """the maps around the layers: a pooler, a head's or a factored table's inner map; never that which gives logits"""

    def __post_init__(self) -> None:
        """Raises: ValueError where no part is left."""
        if not (self.encoder or self.embeddings or self.heads):
            raise ValueError("encoder, embeddings and heads are all switched off: leave one on, or leave the step out")

    def linears(self, model: PreTrainedModel) -> list[str]:
        """Paths of the linear maps that are still whole, the encoder's first."""
        return (linears(model) if self.encoder else []) + (_outside(model) if self.heads else [])

    def tables(self, model: PreTrainedModel) -> list[str]:
        """Paths of the tables that are still whole, the word embeddings first."""
        found = table_paths(model) if self.embeddings else []
        return [path for path in found if type(model.get_submodule(path)) is nn.Embedding]


@dataclass(frozen=True, kw_only=True)
class FewBits(Parts):
    """Weights of fewer than 8 bits, beside which the inputs of linear maps may be rounded too."""

    activations: Inputs = "float"
    """inputs of linear maps: as they are, or "dynamic", in 8 bits, in the range of each batch: as small, and as fast in
    ONNX Runtime as int8, which the weights become when a graph is loaded"""


def table_paths(model: PreTrainedModel) -> list[str]:
    """Paths of the word embeddings, of the tables within where they are factored, and, where the family has them as a
    table, of the position embeddings.
    """
    word = word_embedding_path(model)
    inner = [f"{word}.{path}" for path, _ in model.get_submodule(word).named_modules() if path]
    positions = layout_of(model.config).position_embeddings
    return [word, *inner, *([positions] if positions else [])]


def quantized(
    model: PreTrainedModel,
    parts: Parts,
    make_linear: Callable[[str, nn.Linear], Compressed],
    make_table: Callable[[str, nn.Embedding], Compressed],
    *,
    method: str,
) -> PreTrainedModel:
    """A copy of the model, in eval mode, with what is made of each map and table in its place.

    Raises: InputError where there is nothing left to quantize.
    """
    made = copy.deepcopy(model).eval()
    maps, tables = parts.linears(made), parts.tables(made)
    if not maps and not tables:
        raise InputError(
            f"{method}: no linear map or table that is still whole among the parts {_named(parts)}: they are quantized "
            "already; leave the step out"
        )
    for path in tables:
        table = made.get_submodule(path)
        assert isinstance(table, nn.Embedding)
        replace_table_(made, path, make_table(path, table))
    for path in maps:
        linear = made.get_submodule(path)
        assert isinstance(linear, nn.Linear)
        replace_module_(made, path, make_linear(path, linear))
    log.info("%s: %d linear maps and %d tables quantized", method, len(maps), len(tables))
    whole: PreTrainedModel = made.eval()
    return whole


def no_linear(path: str, linear: nn.Linear) -> Compressed:
    """Where only tables are quantized."""
    raise AssertionError(path)


def replace_table_(model: PreTrainedModel, path: str, module: Compressed) -> None:
    """Put `module` where a table stands; a vocabulary projection tied to it follows."""
    if path == word_embedding_path(model):
        replace_embedding_(model, module)
    else:
        replace_module_(model, path, module)


def _outside(model: PreTrainedModel) -> list[str]:
    """Paths of the linear maps around the layers that give no logits."""
    last = {model.config.num_labels, model.config.vocab_size, 2}
    inside = set(linears(model))
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and path not in inside and module.out_features not in last
    ]


def _named(parts: Parts) -> str:
    return ", ".join(name for name in ("encoder", "embeddings", "heads") if getattr(parts, name))
