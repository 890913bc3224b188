"""What in a model is not as its config says: compressed parts, sizes of their own, modules that stand twice."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn
from torch.nn.utils.init import skip_init
from transformers import PreTrainedModel

from affinage.errors import InputError
from affinage.models.layout import layout_of
from affinage.models.modules.base import Compressed, module_kinds, rebuilt
from affinage.models.modules.tied import TiedProjection
from affinage.models.replacing import replace_embedding_, replace_module_

_PLAIN: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    nn.Linear: ("linear", ("in_features", "out_features")),
    nn.Embedding: ("embedding", ("num_embeddings", "embedding_dim", "padding_idx")),
}
"""stock classes that may have other sizes: their kind, and what says their size"""
_NUMBERING = {"layer_idx", "layer_id"}
"""a layer's place in a cache of keys and values, which encoders do not keep"""


class Part(BaseModel):
    """A module that is another than in the stock model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    settings: dict[str, bool | int | float | str | tuple[int, ...] | None]
    """of its constructor"""


class Structure(BaseModel):
    """How a model differs from the stock one of its config; empty where it does not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: dict[str, Part] = {}
    """path -> what stands there; what lies inside another part comes after it"""
    attributes: dict[str, int] = {}
    """path of a whole number that a module keeps, as `….attention.self.num_attention_heads` -> its value"""
    shared: dict[str, str] = {}
    """path -> path of the module that stands there too"""

    @property
    def empty(self) -> bool:
        """Whether the model is a stock one."""
        return not (self.parts or self.attributes or self.shared)


def structure_of(model: PreTrainedModel) -> Structure:
    """What differs from the stock model of its config. Raises: ValueError for what no structure can say."""
    with torch.device("meta"):
        stock = type(model)(deepcopy(model.config))
    difference = _Difference()
    difference.find("", model, stock)
    return Structure(parts=difference.parts, attributes=difference.attributes, shared=difference.shared)


def apply_structure_(model: PreTrainedModel, structure: Structure) -> None:
    """Give a stock model this structure; what is new in it is empty, for weights to be filled in.

    The model may have another head than the one the structure was found in: parts of a head that it lacks are left out.

    Raises: InputError where the structure does not belong to this architecture, or names a kind that is not known.
    """
    base = f"{layout_of(model.config).base}."
    for path, part in structure.parts.items():
        if _has(model, path, base):
            _put_(model, path, _made(part))
    for path, value in structure.attributes.items():
        owner, _, name = path.rpartition(".")
        if _has(model, owner, base):
            setattr(model.get_submodule(owner), name, value)
    for path, first in structure.shared.items():
        if _has(model, path, base) and _has(model, first, base):
            owner, _, name = path.rpartition(".")
            setattr(model.get_submodule(owner), name, model.get_submodule(first))
    model.eval()


def refuse_compressed(model: PreTrainedModel) -> None:
    """Raises: InputError where the model is not stock, and its layers therefore cannot start another."""
    if not structure_of(model).empty:
        raise InputError(
            "a compressed model's layers cannot start a student, which is a stock model; name an uncompressed teacher, "
            "or give the student with --from"
        )


class _Difference:
    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self.attributes: dict[str, int] = {}
        self.shared: dict[str, str] = {}
        self._seen: dict[int, tuple[str, int]] = {}

    def find(self, path: str, mine: nn.Module, stock: nn.Module | None) -> None:
        """Compare the module at `path` with the stock one there, None where there is none."""
        first, stock_first = self._seen.setdefault(id(mine), (path, id(stock)))
        if first != path:
            if stock_first != id(stock):
                self.shared[path] = first
            return
        if isinstance(mine, TiedProjection):  # follows from the table
            return
        if isinstance(mine, Compressed):
            self.parts[path] = Part(kind=mine.kind, settings=dict(mine.settings()))
            with torch.device("meta"):
                stock = rebuilt(mine.kind, mine.settings())
        elif isinstance(mine, nn.Linear | nn.Embedding):
            kind, names = _PLAIN[nn.Linear if isinstance(mine, nn.Linear) else nn.Embedding]
            settings = {name: getattr(mine, name) for name in names}
            if isinstance(mine, nn.Linear):
                settings["bias"] = mine.bias is not None
            if not _is_a(mine, stock) or stock is None or settings != _plain_settings(stock, settings):
                self.parts[path] = Part(kind=kind, settings=settings)
        elif stock is None or not _is_a(mine, stock):
            if any(True for _ in (*mine.parameters(), *mine.buffers())):
                raise ValueError(f"'{path}' is a {type(mine).__name__}, which no checkpoint can say: register a kind")
            return
        else:
            self._compare_numbers(path, mine, stock)
        for name, child in mine._modules.items():  # `named_children` leaves out what stands twice
            if child is not None:
                theirs = None if stock is None else stock._modules.get(name)
                self.find(f"{path}.{name}" if path else name, child, theirs)

    def _compare_numbers(self, path: str, mine: nn.Module, stock: nn.Module) -> None:
        for name, value in vars(stock).items():
            if type(value) is int and name not in _NUMBERING and getattr(mine, name) != value:
                self.attributes[f"{path}.{name}"] = int(getattr(mine, name))


def _is_a(mine: nn.Module, stock: nn.Module | None) -> bool:
    """Whether `mine` is of the stock class; what trains it may have made a class of its own of that (FSDP)."""
    return stock is not None and isinstance(mine, type(stock))


def _plain_settings(stock: nn.Module, settings: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: getattr(stock, name) for name in settings if name != "bias"}
    return found | ({"bias": getattr(stock, "bias", None) is not None} if "bias" in settings else {})


def _made(part: Part) -> nn.Module:
    for plain, (kind, _) in _PLAIN.items():
        if kind == part.kind:
            made: nn.Module = skip_init(plain, **part.settings)
            return made
    if part.kind not in module_kinds:
        raise InputError(
            f"a part of kind '{part.kind}' is not known; known: {', '.join(sorted(module_kinds))}; the model was made "
            "by another version of affinage"
        )
    return rebuilt(part.kind, part.settings)


def _put_(model: PreTrainedModel, path: str, module: nn.Module) -> None:
    if path == layout_of(model.config).word_embeddings:
        assert isinstance(module, Compressed | nn.Embedding)
        replace_embedding_(model, module)
    else:
        replace_module_(model, path, module)


def _has(model: PreTrainedModel, path: str, base: str) -> bool:
    """Raises: InputError where the encoder lacks what has to be there."""
    try:
        model.get_submodule(path)
    except AttributeError:
        if path.startswith(base) and ".pooler" not in path:
            raise InputError(
                f"its structure.json names '{path}', which a {type(model).__name__} of its config has not; make the "
                "model again"
            ) from None
        return False
    return True
