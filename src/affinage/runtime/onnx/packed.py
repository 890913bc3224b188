"""Packed kinds in a graph: integers as they are on disk, unpacked when the graph is loaded, or computed with.

What follows from constants alone is computed once, when ONNX Runtime loads the graph.
"""

from typing import Any

import numpy as np

from affinage.models.modules.codebook import CodebookMatrix
from affinage.models.modules.groups import GroupMatrix
from affinage.models.modules.matrix import PRODUCT_BITS, Matrix
from affinage.models.modules.packing import TRITS
from affinage.models.modules.signs import BinaryMatrix
from affinage.runtime.onnx.graph import Graph
from affinage.runtime.onnx.linear import (
    Emission,
    Value,
    embedding_emitters,
    linear_emitters,
    projection_emitters,
)

_FLOAT, _INT8, _INT32 = 1, 3, 6
_ONE = np.array(1, np.float32)


def _int8_linear(out: Emission, x: str, module: Any) -> Value:
    g = out.graph
    quantized = g.once("DynamicQuantizeLinear", x, outputs=3)
    return Value(_integer(out, quantized, module))


def _static_int8_linear(out: Emission, x: str, module: Any) -> Value:
    g = out.graph
    scale = g.constant(module.input_scale.float().cpu().numpy())
    zero = g.constant(module.input_zero_point.cpu().numpy().astype(np.uint8))
    if out.pairs:
        read = g.once("DequantizeLinear", g.once("QuantizeLinear", x, scale, zero), scale, zero)
        codes = g.weight(module.codes, "t", lambda rows: rows.T)
        return Value(
            g.op("MatMul", read, g.once("DequantizeLinear", codes, g.weight(module.scale), axis=1)), module.bias
        )
    return Value(_integer(out, (g.once("QuantizeLinear", x, scale, zero), scale, zero), module))


def _integer(out: Emission, quantized: tuple[str, str, str], module: Any) -> str:
    """The product in integers; `quantized`: x, its scale and its zero point."""
    g = out.graph
    x, scale, zero = quantized
    codes, scales = g.weight(module.codes, "t", lambda rows: rows.T), g.weight(module.scale)
    bias = () if module.bias is None else (g.weight(module.bias),)
    return str(g.fused("MatMulIntegerToFloat", x, codes, scale, scales, zero, "", *bias))


def _int8_embedding(out: Emission, ids: str, module: Any, lead: int) -> str:
    return out.gather_int8(ids, out.graph.weight(module.codes), out.graph.weight(module.scale))


def _int8_projection(out: Emission, x: str, module: Any) -> str:
    codes = out.graph.once("Transpose", out.graph.weight(module.codes), perm=(1, 0))
    return out.integer_product(x, codes, out.graph.weight(module.scale), None)


def _matrix_linear(out: Emission, x: str, module: Any) -> Value:
    if module.inputs == "dynamic":
        bias = None if module.bias is None else out.graph.weight(module.bias)
        return Value(out.integer_product(x, *_as_integers(out.graph, module.matrix), bias))
    if isinstance(module.matrix, GroupMatrix) and module.matrix.bits in (4, 8):
        return Value(_few_bits_product(out.graph, x, module.matrix), module.bias)
    whole = _rows(out.graph, module.matrix, None, 1)
    return Value(out.graph.fused("FusedMatMul", x, whole, transB=1), module.bias)


def _as_integers(g: Graph, matrix: Matrix) -> tuple[str, str]:
    """(K, N) int8 and (N,) scales, as `MatrixLinear` rounds what it unpacks: made when the graph is loaded."""
    whole = _rows(g, matrix, None, 1)
    largest = g.largest(g.op("Abs", whole), 1)
    steps = g.op("Div", largest, g.constant(np.array(2 ** (PRODUCT_BITS - 1) - 1, np.float32)))
    scale = g.op("Where", g.op("Greater", largest, g.constant(np.array(0, np.float32))), steps, g.constant(_ONE))
    codes = g.op("Round", g.op("Div", whole, g.op("Unsqueeze", scale, g.constant([1]))))
    return g.op("Transpose", g.op("Cast", codes, to=_INT8), perm=(1, 0)), scale


def _few_bits_product(g: Graph, x: str, matrix: GroupMatrix) -> str:
    """MatMulNBits, which reads the packed codes."""
    codes = g.weight(matrix.codes, "blocks", lambda rows: rows.reshape(matrix.rows, matrix.groups, -1))
    scales = g.once("Cast", g.weight(matrix.scale), to=_FLOAT)
    zeros = g.weight(matrix.zero_points)
    sizes = {"K": matrix.cols, "N": matrix.rows, "bits": matrix.bits, "block_size": matrix.group}
    return str(g.fused("MatMulNBits", x, codes, scales, zeros, **sizes))


def _matrix_embedding(out: Emission, ids: str, module: Any, lead: int) -> str:
    return _rows(out.graph, module.matrix, ids, lead)


def _rows(g: Graph, matrix: Matrix, ids: str | None, lead: int) -> str:
    """(…, cols) float32: the rows of `ids`, which have `lead` axes; None: all."""

    def pick(constant: str) -> str:
        return constant if ids is None else str(g.op("Gather", constant, ids))

    if isinstance(matrix, GroupMatrix):
        codes = _unpacked(g, pick(g.weight(matrix.codes)), matrix.bits, matrix.groups * matrix.group, lead)
        zeros = _unpacked(g, pick(g.weight(matrix.zero_points)), matrix.bits, matrix.groups, lead)
        shape = g.constant([*[0] * lead, matrix.groups, matrix.group])
        steps = g.op("Sub", g.op("Reshape", codes, shape), g.op("Unsqueeze", zeros, g.constant([-1])))
        scale = g.op("Unsqueeze", g.op("Cast", pick(g.weight(matrix.scale)), to=_FLOAT), g.constant([-1]))
        found = g.op("Mul", g.op("Cast", steps, to=_FLOAT), scale)
        flat = g.op("Reshape", found, g.constant([*[0] * lead, -1]))
        return _cut(g, flat, matrix.groups * matrix.group, matrix.cols)
    if isinstance(matrix, CodebookMatrix):
        pieces = matrix.cols // matrix.width
        codes = _unpacked(g, pick(g.weight(matrix.codes)), matrix.bits, pieces, lead)
        if matrix.books > 1:
            codes = g.op("Add", codes, g.constant(matrix.entries * np.arange(pieces, dtype=np.int32)))
        book = g.weight(matrix.book, "entries", lambda books: books.reshape(-1, matrix.width))
        return str(g.op("Reshape", g.op("Gather", book, codes), g.constant([*[0] * lead, -1])))
    binary = isinstance(matrix, BinaryMatrix)
    packed: Any = matrix
    if binary:
        signs = _unpacked(g, pick(g.weight(packed.codes)), 1, matrix.cols, lead)
        signs = g.op("Mul", signs, g.constant(np.array(2, np.int32)))
    else:
        signs = _digits(g, pick(g.weight(packed.codes)), 3, TRITS, matrix.cols, -(-matrix.cols // TRITS) * TRITS, lead)
    values = g.op("Cast", g.op("Sub", signs, g.constant(np.array(1, np.int32))), to=_FLOAT)
    return str(g.op("Mul", values, g.op("Unsqueeze", pick(g.weight(packed.scale)), g.constant([-1]))))


def _unpacked(g: Graph, packed: str, bits: int, count: int, lead: int) -> str:
    """(…, bytes) uint8 as `packing.pack_bits` made them -> (…, count) int32."""
    if bits == 8:
        return str(g.op("Cast", packed, to=_INT32))
    if 8 % bits == 0:
        held = -(-count * bits // 8) * 8 // bits
        return _digits(g, packed, 2**bits, 8 // bits, count, held, lead)
    size = -(-count * bits // 8) * 8
    stream = _digits(g, packed, 2, 8, count * bits, size, lead)
    places = g.op("Reshape", stream, g.constant([*[0] * lead, count, bits]))
    weighed = g.op("Mul", places, g.constant((2 ** np.arange(bits)).astype(np.int32)))
    return str(g.op("ReduceSum", weighed, g.constant([-1]), keepdims=0))


def _digits(g: Graph, packed: str, base: int, each: int, count: int, held: int, lead: int) -> str:
    """(…, bytes) uint8 -> (…, count) int32: the `each` digits of every byte to that base, lowest first, of `held`."""
    ends = (g.constant(np.array(n, np.int32)) for n in (0, 256, 1))
    whole = g.once("Unsqueeze", g.once("Range", *ends), g.constant([-1]))
    shifted = g.once("Div", whole, g.constant((base ** np.arange(each)).astype(np.int32)))
    digits_of = g.once("Mod", shifted, g.constant(np.array(base, np.int32)))  # of every byte there is: made once
    digits = g.op("Gather", digits_of, g.op("Cast", packed, to=_INT32))
    return _cut(g, g.op("Reshape", digits, g.constant([*[0] * lead, -1])), held, count)


def _cut(g: Graph, x: str, held: int, count: int) -> str:
    """The first `count` of the last axis, which has `held`."""
    if held == count:
        return x
    return str(g.op("Slice", x, g.constant([0]), g.constant([count]), g.constant([-1])))


def _group_projection(out: Emission, x: str, module: Any) -> str:
    if module.matrix.bits in (4, 8):
        return _few_bits_product(out.graph, x, module.matrix)
    return out.all_rows_product(x, module)


linear_emitters["int8-linear"] = _int8_linear
linear_emitters["int8-static-linear"] = _static_int8_linear
embedding_emitters["int8-embedding"] = _int8_embedding
projection_emitters["int8-embedding"] = _int8_projection
projection_emitters["group-embedding"] = _group_projection
for _form in ("group", "codebook", "ternary", "binary"):
    linear_emitters[f"{_form}-linear"] = _matrix_linear
    embedding_emitters[f"{_form}-embedding"] = _matrix_embedding
