"""int8 for a traced graph: what the built ones are given while they grow, done to operators that are there already."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from affinage.runtime.onnx.graph import MICROSOFT, Array
from affinage.runtime.onnx.linear import Int8, int8_rows, row_scales

_SMALL = 8
"""A map to so few outputs is the last one, to the classes: it weighs nothing and decides."""


def quantize_(model: onnx.ModelProto, int8: Int8) -> None:
    """Products with constant matrices become integer ones, the largest table that is looked up in becomes int8."""
    graph = model.graph
    weights = {one.name: one for one in graph.initializer}
    table = _largest_table(graph, weights)
    made: dict[str, onnx.TensorProto] = {}
    quantized: dict[str, tuple[str, str, str]] = {}
    nodes: list[onnx.NodeProto] = []

    def store(name: str, array: Array) -> str:
        made.setdefault(name, numpy_helper.from_array(array, name))
        return name

    for node in graph.node:
        if node.op_type == "MatMul" and _is_matrix(weights.get(node.input[1])):
            x, name = node.input
            matrix = np.array(numpy_helper.to_array(weights[name]).T, order="C")
            if x not in quantized:
                quantized[x] = (f"{x}.u8", f"{x}.u8_scale", f"{x}.u8_zero")
                nodes.append(helper.make_node("DynamicQuantizeLinear", [x], quantized[x]))
            u8, scale, zero = quantized[x]
            held = store(f"{name}.int8", np.ascontiguousarray(int8_rows(matrix, int8.bits).T))
            scales = store(f"{name}.scale", row_scales(matrix, int8.bits))
            given = [u8, held, scale, scales, zero]
            nodes.append(helper.make_node("MatMulIntegerToFloat", given, node.output, node.name, domain=MICROSOFT))
        elif node.op_type == "Gather" and node.input[0] == table:
            rows = np.array(numpy_helper.to_array(weights[table]))
            held = store(f"{table}.int8", int8_rows(rows, int8.bits))
            scales = store(f"{table}.scale", row_scales(rows, int8.bits)[:, None])
            out = node.output[0]
            nodes += [
                helper.make_node("Gather", [held, node.input[1]], [f"{out}.int8"]),
                helper.make_node("Gather", [scales, node.input[1]], [f"{out}.scale"]),
                helper.make_node("Cast", [f"{out}.int8"], [f"{out}.whole"], to=onnx.TensorProto.FLOAT),
                helper.make_node("Mul", [f"{out}.whole", f"{out}.scale"], [out]),
            ]
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [*(one for one in graph.initializer if one.name in used), *made.values()]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    if MICROSOFT not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))


def _is_matrix(weight: onnx.TensorProto | None) -> bool:
    return weight is not None and len(weight.dims) == 2 and weight.dims[1] > _SMALL


def _largest_table(graph: onnx.GraphProto, weights: dict[str, onnx.TensorProto]) -> str:
    """The matrix whose rows are looked up and that has most of them: the word embeddings."""
    looked_up = [node.input[0] for node in graph.node if node.op_type == "Gather" and _axis(node) == 0]
    tables = [weights[name] for name in looked_up if name in weights and len(weights[name].dims) == 2]
    return max(tables, key=lambda one: int(one.dims[0]), default=onnx.TensorProto()).name


def _axis(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
