"""Linear maps and embedding tables as operators: plain ones here, compressed kinds by an emitter each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from affinage.models.modules.base import Compressed
from affinage.models.modules.int8 import int8_scale, to_int8
from affinage.models.modules.tied import TiedProjection
from affinage.runtime.onnx.graph import Array, Graph


class Value(NamedTuple):
    """A value of the graph (…, N), and the bias (N,) that is still to be added: the next operator may do it free."""

    name: str
    bias: Tensor | None = None


@dataclass(frozen=True)
class Int8:
    """Weights as int8 with a scale for each row, activations as uint8 with a range found at every run.

    u8 x s8 is what ONNX Runtime's kernels are fast at on x86. `bits`: 7 where the CPU has no VNNI: its sums of two
    products are kept in 16 bits, and saturate with more.
    """

    bits: int = 8


class Emission:
    """A graph under construction, and how its weights are stored."""

    def __init__(self, graph: Graph, int8: Int8 | None = None, *, pairs: bool = False, branches: bool = False) -> None:
        """`pairs`: integer maps with fixed ranges as ordinary products of numbers that are quantized and dequantized,
        which is how OpenVINO is told of integers, instead of ONNX Runtime's operators for them. `branches`: attention
        without its mask where all tokens are real, for which ONNX Runtime has a quicker kernel.
        """
        self.graph = graph
        self.int8 = int8
        self.pairs = pairs
        self.branches = branches

    def linear(self, x: str, module: nn.Module) -> Value:
        """x (…, K) through a linear map (plain or compressed): (…, N)."""
        if isinstance(module, TiedProjection):
            return Value(self.rows_product(x, module.table), module.bias)
        if isinstance(module, Compressed):
            return linear_emitters.get(module.kind, _dense_linear)(self, x, module)
        assert isinstance(module, nn.Linear)
        return self.product(x, module.weight, module.bias)

    def linears(self, x: str, modules: Sequence[nn.Module]) -> list[Value]:
        """x (…, K) through several maps. Plain ones become one product of integers, whose columns are then parted: it
        is quicker than one for each.
        """
        plain = [module for module in modules if type(module) is nn.Linear]
        biases = [module.bias for module in plain if module.bias is not None]
        if self.int8 is None or len(plain) < len(modules) or len(biases) not in (0, len(plain)):
            return [self.linear(x, module) for module in modules]
        g, bits = self.graph, self.int8.bits
        first, *others = (module.weight for module in plain)
        scale = g.weight(first, "scales", lambda *ws: np.concatenate([row_scales(w, bits) for w in ws]), others=others)
        stored = g.weight(
            first, "int8_joined", lambda *ws: np.concatenate([int8_rows(w, bits) for w in ws]).T, others=others
        )
        found = self.integer_product(x, stored, scale, self.joined(biases) if biases else None)
        sizes = g.constant([module.out_features for module in plain])
        return [Value(name) for name in g.op("Split", found, sizes, outputs=len(plain), axis=-1)]

    def embedding(self, ids: str, module: nn.Module, lead: int = 2) -> str:
        """Rows of a table for ids (B, T), or of `lead` axes: (B, T, H)."""
        if isinstance(module, Compressed):
            return embedding_emitters.get(module.kind, _dense_embedding)(self, ids, module, lead)
        assert isinstance(module, nn.Embedding)
        return self.gather(ids, module.weight)

    def rows_product(self, x: str, table: nn.Module) -> str:
        """x (…, H) with every row of an embedding table: (…, V)."""
        if isinstance(table, Compressed):
            return projection_emitters.get(table.kind, Emission.all_rows_product)(self, x, table)
        assert isinstance(table, nn.Embedding)
        return self.product(x, table.weight, None, rows=True).name

    def all_rows_product(self, x: str, table: nn.Module) -> str:
        """`rows_product` of a table that is made whole."""
        return str(self.graph.fused("FusedMatMul", x, self.whole_table(table), transB=1))

    def whole_table(self, table: nn.Module) -> str:
        """Every row of a table, (V, H): it follows from constants, so it is made once."""
        g = self.graph
        ends = (g.constant(np.array(n)) for n in (0, int(table.num_embeddings), 1))  # type: ignore[arg-type]
        return self.embedding(g.op("Range", *ends), table, 1)

    def product(self, x: str, weight: Tensor, bias: Tensor | None, *, rows: bool = False) -> Value:
        """x (…, K) · weightᵀ, weight (N, K). `rows`: it is an embedding table too, and is stored as one."""
        g = self.graph
        if self.int8 is None:
            return Value(g.fused("FusedMatMul", x, g.weight(weight), transB=1), bias)
        bits = self.int8.bits
        scale = g.weight(weight, "scale", lambda w: row_scales(w, bits))
        if rows:
            stored = g.once("Transpose", g.weight(weight, "int8", lambda w: int8_rows(w, bits)), perm=(1, 0))
        else:
            stored = g.weight(weight, "int8", lambda w: int8_rows(w, bits).T)
        return Value(self.integer_product(x, stored, scale, None if bias is None else g.weight(bias)))

    def integer_product(self, x: str, weight: str, scale: str, bias: str | None) -> str:
        """x (…, K) · weight · scale + bias; weight (K, N) int8, scale (N,) or (). One quantization of x serves all."""
        g = self.graph
        quantized, x_scale, zero = g.once("DynamicQuantizeLinear", x, outputs=3)
        given = (quantized, weight, x_scale, scale, zero, "")
        name: str = g.fused("MatMulIntegerToFloat", *given, *(() if bias is None else (bias,)))
        return name

    def gather(self, ids: str, weight: Tensor) -> str:
        """Rows of weight (V, H)."""
        g = self.graph
        if self.int8 is None:
            found: str = g.op("Gather", g.weight(weight), ids)
            return found
        bits = self.int8.bits
        rows = g.weight(weight, "int8", lambda w: int8_rows(w, bits))
        return self.gather_int8(ids, rows, g.weight(weight, "scale", lambda w: row_scales(w, bits)))

    def gather_int8(self, ids: str, rows: str, scales: str) -> str:
        """Rows of a table (V, H) int8 with scales (V,)."""
        g = self.graph
        scale = g.op("Unsqueeze", g.op("Gather", scales, ids), g.constant([-1]))
        found: str = g.op("Mul", g.op("Cast", g.op("Gather", rows, ids), to=1), scale)
        return found

    def joined(self, biases: Sequence[Tensor]) -> str:
        """One constant of several biases."""
        first, *others = biases
        return self.graph.weight(first, "joined", lambda *arrays: np.concatenate(arrays), others=others)

    def add_bias(self, value: Value) -> str:
        """The value with its bias."""
        if value.bias is None:
            return value.name
        added: str = self.graph.op("Add", value.name, self.graph.weight(value.bias))
        return added

    def activate(self, value: Value, activation: str) -> str:
        """The value, its bias and an activation under transformers' name for it."""
        g = self.graph
        if activation == "gelu" and value.bias is not None:
            return str(g.fused("BiasGelu", value.name, g.weight(value.bias)))
        if activation in ("gelu_new", "gelu_pytorch_tanh"):
            bias = () if value.bias is None else (g.weight(value.bias),)
            return str(g.fused("FastGelu", value.name, *bias))
        x = self.add_bias(value)
        if activation == "gelu":
            return str(g.fused("Gelu", x))
        if activation in ("silu", "swish"):
            return str(g.fused("QuickGelu", x, alpha=1.0))
        return str(g.op({"relu": "Relu", "tanh": "Tanh"}[activation], x))

    def norm(self, value: Value, norm: nn.LayerNorm) -> str:
        """LayerNorm of a value."""
        x = self.add_bias(value)
        weight, bias = self._norm_weights(norm)
        return str(self.graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=norm.eps))

    def add_norm(self, value: Value, skip: str, norm: nn.LayerNorm) -> str:
        """LayerNorm(value + skip); `skip` may lack the batch.

        ONNX Runtime's kernel for both, SkipLayerNormalization, adds number by number on CPUs and takes four times as
        long as these two. It would make one of an Add and a norm when it loads the graph; of a Sum it does not.
        """
        bias = () if value.bias is None else (self.graph.weight(value.bias),)
        added = self.graph.op("Sum", value.name, skip, *bias)
        given = (added, *self._norm_weights(norm))
        return str(self.graph.op("LayerNormalization", *given, axis=-1, epsilon=norm.eps))

    def _norm_weights(self, norm: nn.LayerNorm) -> tuple[str, str]:
        assert isinstance(norm.weight, Tensor) and isinstance(norm.bias, Tensor)
        return self.graph.weight(norm.weight), self.graph.weight(norm.bias)


ACTIVATIONS = frozenset({"gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "tanh", "silu", "swish"})

LinearEmitter = Callable[[Emission, str, Any], Value]
EmbeddingEmitter = Callable[[Emission, str, Any, int], str]
ProjectionEmitter = Callable[[Emission, str, Any], str]
linear_emitters: dict[str, LinearEmitter] = {}
"""kind of a compressed linear map -> what puts it into a graph; others go in as the dense matrix they stand for"""
embedding_emitters: dict[str, EmbeddingEmitter] = {}
projection_emitters: dict[str, ProjectionEmitter] = {}
"""kind of a compressed embedding -> what multiplies with all of its rows"""


def row_scales(weight: Array, bits: int = 8) -> NDArray[np.float32]:
    """(N,) as `modules.int8.int8_scale`."""
    scales: NDArray[np.float32] = int8_scale(torch.from_numpy(weight), bits=bits).numpy()
    return scales


def int8_rows(weight: Array, bits: int = 8) -> NDArray[np.int8]:
    """(N, K) as `modules.int8.to_int8`."""
    tensor = torch.from_numpy(weight)
    rows: NDArray[np.int8] = to_int8(tensor, int8_scale(tensor, bits=bits)).numpy()
    return rows


def _dense_linear(out: Emission, x: str, module: Any) -> Value:
    return out.product(x, module.dense(), module.bias)


def _dense_embedding(out: Emission, ids: str, module: Any, lead: int) -> str:
    return out.gather(ids, module.dense())
