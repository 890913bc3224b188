"""Which linear maps of a model a method works on: those of attention, of the feed-forward networks, or all."""

from typing import Literal

from torch import nn
from transformers import PreTrainedModel

from affinage.compression.base import Side
from affinage.errors import InputError
from affinage.models.layout import layout_of
from affinage.models.modules.base import Compressed
from affinage.models.replacing import linears, word_embedding_path

Maps = Literal["all", "attention", "feed-forward", "none"]
Parts = Literal["all", "linears", "attention", "feed-forward", "embeddings"]


class OnParts:
    """What the methods with a field `parts` say of them."""

    parts: Parts

    @property
    def works_on(self) -> frozenset[Side]:
        """The sides that `parts` names."""
        return _NAMED[self.parts]

    @property
    def uses_up(self) -> frozenset[Side]:
        """All of them, where a method does not say otherwise."""
        return self.works_on


def stock_linears(model: PreTrainedModel, which: Maps = "all") -> dict[str, nn.Linear]:
    """Path -> the linear maps of the layers that are stock ones still; those inside `Compressed` modules are not."""
    inside = {id(m) for part in model.modules() if isinstance(part, Compressed) for m in part.modules()}
    found = {path: model.get_submodule(path) for path in linears(model) if in_attention(model, path) in _SIDES[which]}
    return {path: m for path, m in found.items() if isinstance(m, nn.Linear) and id(m) not in inside}


def chosen_parts(
    model: PreTrainedModel, parts: Parts, *, method: str
) -> tuple[dict[str, nn.Linear], nn.Embedding | None]:
    """The stock linear maps, and the stock word embeddings or None, that `parts` names.

    Raises: InputError where there is none that is not compressed already.
    """
    maps: Maps = {"linears": "all", "embeddings": "none"}.get(parts, parts)  # type: ignore[assignment]
    table = model.get_submodule(word_embedding_path(model)) if parts in ("all", "embeddings") else None
    table = table if isinstance(table, nn.Embedding) else None
    found = stock_linears(model, maps)
    if not found and table is None:
        raise InputError(f"{method}: the model's {parts} are compressed already; take other parts, or leave it out")
    return found, table


def in_attention(model: PreTrainedModel, path: str) -> bool:
    """Whether a linear map of the encoder belongs to attention: to a module called so, in every architecture."""
    layout = layout_of(model.config)
    return any(name.endswith(("attention", "attentions", "attn")) for name in path.removeprefix(layout.base).split("."))


_LINEARS: frozenset[Side] = frozenset({"attention", "feed-forward"})
_NAMED: dict[Parts, frozenset[Side]] = {
    "all": _LINEARS | {"embeddings"},
    "linears": _LINEARS,
    "attention": frozenset({"attention"}),
    "feed-forward": frozenset({"feed-forward"}),
    "embeddings": frozenset({"embeddings"}),
}
_SIDES: dict[Maps, frozenset[bool]] = {
    "all": frozenset({True, False}),
    "attention": frozenset({True}),
    "feed-forward": frozenset({False}),
    "none": frozenset(),
}
