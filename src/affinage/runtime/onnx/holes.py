"""Compressed modules in a traced graph: holes while it is traced, then the operators of built graphs in them."""

import copy

import onnx
import torch
from onnx import helper
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.models.layout import layout_of
from affinage.models.modules.base import Compressed
from affinage.models.modules.tied import TiedProjection
from affinage.models.replacing import replace_embedding_, replace_module_
from affinage.runtime.onnx.graph import MICROSOFT, Graph
from affinage.runtime.onnx.heads import MASKED, head_of
from affinage.runtime.onnx.linear import Emission, Int8

_DOMAIN = "affinage"
_HOLE = f"{_DOMAIN}::Hole"
Filling = Compressed | TiedProjection


def with_holes(model: PreTrainedModel) -> tuple[PreTrainedModel, list[Filling]]:
    """The model with a hole for each compressed module, and what belongs into them; itself where there is none.

    The exporter cannot trace all of these modules, and would store those it can as floats.
    """
    if not any(isinstance(module, Compressed) for module in model.modules()):
        return model, []
    plain = copy.deepcopy(model)
    fillings: list[Filling] = []
    layout = layout_of(model.config)
    if layout.more_decoder and head_of(model) == MASKED:  # MobileBERT's head multiplies with these numbers itself
        _make_dense_(plain, layout.word_embeddings, layout.more_decoder)
    for path, module in list(plain.named_modules()):
        if not isinstance(module, Compressed | TiedProjection) or _inside(plain, path):
            continue
        filling = model.get_submodule(path)
        assert isinstance(filling, Compressed | TiedProjection)
        replace_module_(plain, path, Hole(len(fillings), filling))
        fillings.append(filling)
    return plain, fillings


def fill_holes_(traced: onnx.ModelProto, fillings: list[Filling], model: PreTrainedModel, *, int8: Int8 | None,
                pairs: bool, opset: int) -> None:  # fmt: skip
    """Put the operators of what belongs there into the holes. `int8`, `pairs`: as in `Emission`."""
    out = Emission(Graph(model, opset=opset, prefix="filled_"), int8, pairs=pairs)
    for node in traced.graph.node:
        if node.domain != _DOMAIN:
            out.graph.put(node)
            continue
        filling = fillings[next(one.i for one in node.attribute if one.name == "place")]
        (x,) = node.input
        if hasattr(filling, "num_embeddings"):
            found = out.embedding(x, filling)
        else:
            found = out.add_bias(out.linear(x, filling))
        out.graph.put(helper.make_node("Identity", [found], node.output))
    out.graph.replace_(traced.graph)
    others = [one for one in traced.opset_import if one.domain not in (_DOMAIN, MICROSOFT)]
    del traced.opset_import[:]
    traced.opset_import.extend([*others, helper.make_opsetid(MICROSOFT, 1)])


class Hole(nn.Module):
    """An operator without a meaning, of the shape that the module in its place would give."""

    def __init__(self, place: int, filling: Filling) -> None:
        super().__init__()
        self.place = place
        self.looked_up = hasattr(filling, "num_embeddings")
        if isinstance(filling, TiedProjection):
            self.width = int(filling.table.num_embeddings)  # type: ignore[arg-type]
        else:
            self.width = int(filling.embedding_dim if self.looked_up else filling.out_features)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Ids (…) or rows (…, K): (…, width)."""
        shape = (*(x.shape if self.looked_up else x.shape[:-1]), self.width)
        found: Tensor = torch.onnx.ops.symbolic(
            _HOLE, (x,), {"place": self.place}, dtype=torch.float32, shape=shape, version=1
        )
        return found


def _make_dense_(model: PreTrainedModel, table: str, linear: str) -> None:
    """Put the matrices that they stand for in the places of a compressed table and a compressed linear map."""
    found = model.get_submodule(table)
    if isinstance(found, Compressed):
        replace_embedding_(model, nn.Embedding.from_pretrained(found.dense().detach()))
    found = model.get_submodule(linear)
    if isinstance(found, Compressed):
        weight = found.dense().detach()
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        made.weight = nn.Parameter(weight, requires_grad=False)
        replace_module_(model, linear, made)


def _inside(model: PreTrainedModel, path: str) -> bool:
    """Whether it lies within a module that has a hole already."""
    parts = path.split(".")
    return any(isinstance(model.get_submodule(".".join(parts[:i])), Hole) for i in range(1, len(parts)))
