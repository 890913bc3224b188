"""Factored kinds in a graph: the factors as they are; thin products at every run, whole matrices made once, at load."""

from typing import Any

import numpy as np

from affinage.runtime.onnx.graph import Graph
from affinage.runtime.onnx.linear import (
    Emission,
    Value,
    embedding_emitters,
    linear_emitters,
    projection_emitters,
)

_INT64 = 7


def _low_rank_linear(out: Emission, x: str, module: Any) -> Value:
    return out.linear(out.add_bias(out.linear(x, module.down)), module.up)


def _low_rank_embedding(out: Emission, ids: str, module: Any, lead: int) -> str:
    return out.add_bias(out.linear(out.embedding(ids, module.table, lead), module.up))


def _low_rank_projection(out: Emission, x: str, module: Any) -> str:
    """x · (table · upᵀ)ᵀ = (x · up) · tableᵀ."""
    up = module.up.weight if not hasattr(module.up, "dense") else module.up.dense()
    return out.rows_product(out.graph.fused("FusedMatMul", x, out.graph.weight(up)), module.table)


def _kronecker_linear(out: Emission, x: str, module: Any) -> Value:
    """As in torch: a product with all right factors, one with all left ones, whose rows are tokens times `block`.

    Term by term, left · x · rightᵀ, would be products of `block` columns, many times slower.
    """
    g, block, terms = out.graph, module.block, module.terms
    pieces, lead = module.in_features // block, g.op("Shape", x, end=-1)
    right = g.weight(module.right, "t", lambda factors: factors.transpose(2, 0, 1).reshape(block, -1))
    turned = g.op("MatMul", g.op("Reshape", x, g.constant([-1, pieces, block])), right)  # (M, pieces, terms · block)
    apart = g.op("Reshape", turned, g.constant([-1, pieces, terms, block]))
    side = g.op("Reshape", g.op("Transpose", apart, perm=(0, 3, 2, 1)), g.constant([-1, block, terms * pieces]))
    left = g.weight(module.left, "t", lambda factors: factors.transpose(0, 2, 1).reshape(terms * pieces, -1))
    whole = g.op("Transpose", g.op("MatMul", side, left), perm=(0, 2, 1))  # (M, out / block, block)
    shape = g.op("Concat", lead, g.constant([module.out_features]), axis=0)
    return Value(g.op("Reshape", whole, shape), module.bias)


def _kronecker_embedding(out: Emission, ids: str, module: Any, lead: int) -> str:
    """A row (terms, J) transposed, times right (terms, block), is (J, block)."""
    g = out.graph
    rows = out.embedding(ids, module.table, lead)
    left = g.op("Reshape", rows, g.constant([*[0] * lead, module.terms, module.embedding_dim // module.block]))
    turned = g.op("Transpose", left, perm=(*range(lead), lead + 1, lead))
    return _flat(g, g.op("MatMul", turned, g.weight(module.right)), lead)


def _train(g: Graph, module: Any) -> str:
    """The whole matrix of a tensor train, rows filled up: cores (r, m, n, r') joined one after another."""
    found, rows, columns = g.weight(module.cores[0]), module.rows[0], module.columns[0]
    for core, m, n in zip(list(module.cores)[1:], module.rows[1:], module.columns[1:], strict=True):
        rows, columns = rows * m, columns * n
        joined = g.op("Einsum", found, g.weight(core), equation="amnb,bpqc->ampnqc")
        found = g.op("Reshape", joined, g.constant([1, rows, columns, core.shape[3]]))
    return str(g.op("Reshape", found, g.constant([rows, columns])))


def _train_linear(out: Emission, x: str, module: Any) -> Value:
    return Value(out.graph.fused("FusedMatMul", x, _train(out.graph, module), transB=1), module.bias)


def _train_embedding(out: Emission, ids: str, module: Any, lead: int) -> str:
    """Product over the digits of an id of each core's slice (r, n·r')."""
    g, below = out.graph, int(np.prod(module.rows))
    shape = g.op("Concat", g.op("Shape", ids), g.constant([module.embedding_dim]), axis=0)
    flat = g.op("Reshape", ids, g.constant([-1]))
    found, so_far = "", 1
    for size, core in zip(module.rows, module.cores, strict=True):
        below //= size
        _, _, n, after = core.shape
        digit = g.op("Mod", g.op("Div", flat, g.constant([below])), g.constant([size]))
        slices = g.weight(core, "slices", lambda c: c.transpose(1, 0, 2, 3).reshape(c.shape[1], c.shape[0], -1))
        taken = g.op("Gather", slices, digit)  # (N, r, n·r')
        product = g.op("MatMul", found, taken) if found else taken
        so_far *= n
        found = g.op("Reshape", product, g.constant([-1, so_far, after]))
    return str(g.op("Reshape", found, shape))


def _train_projection(out: Emission, x: str, module: Any) -> str:
    g = out.graph
    zero, last = g.constant([0]), g.constant([module.num_embeddings])
    return str(g.fused("FusedMatMul", x, g.op("Slice", _train(g, module), zero, last, zero), transB=1))


def _tucker_linear(out: Emission, x: str, module: Any) -> Value:
    g = out.graph
    whole = g.weight(module.core)
    for letter, side in zip("abcd", module.sides, strict=True):
        equation = f"abcd,z{letter}->{'abcd'.replace(letter, 'z')}"
        whole = g.op("Einsum", whole, g.weight(side), equation=equation)
    matrix = g.op("Reshape", whole, g.constant([module.out_features, module.in_features]))
    return Value(g.fused("FusedMatMul", x, matrix, transB=1), module.bias)


def _tucker_up(g: Graph, module: Any) -> str:
    """(r, H)."""
    first = g.op("Einsum", g.weight(module.core), g.weight(module.sides[0]), equation="abc,mb->amc")
    both = g.op("Einsum", first, g.weight(module.sides[1]), equation="amc,nc->amn")
    return str(g.op("Reshape", both, g.constant([module.ranks[0], module.embedding_dim])))


def _tucker_embedding(out: Emission, ids: str, module: Any, lead: int) -> str:
    return str(out.graph.op("MatMul", out.embedding(ids, module.table, lead), _tucker_up(out.graph, module)))


def _tucker_projection(out: Emission, x: str, module: Any) -> str:
    thin = out.graph.fused("FusedMatMul", x, _tucker_up(out.graph, module), transB=1)
    return out.rows_product(thin, module.table)


def _two_component(out: Emission, ids: str, module: Any, lead: int) -> str:
    g = out.graph
    cells = ids
    if module.cells is not None:
        cells = g.op("Cast", g.op("Gather", g.weight(module.cells), ids), to=_INT64)
    columns = g.constant(np.array(module.columns))
    row = g.op("Gather", g.weight(module.row), g.op("Div", cells, columns))
    column = g.op("Gather", g.weight(module.column), g.op("Mod", cells, columns))
    return str(g.op("Mul" if module.product else "Add", row, column))


def _coded(out: Emission, ids: str, module: Any, lead: int) -> str:
    g = out.graph
    codes = g.op("Cast", g.op("Gather", g.weight(module.codes), ids), to=_INT64)
    if not module.common:
        codes = g.op("Add", codes, g.constant(module.alphabet * np.arange(module.length)))
    letters = g.weight(module.letters, "all", lambda places: places.reshape(-1, places.shape[2]))
    found = g.op("Gather", letters, codes)
    if module.weights is not None:
        weights = g.op("Gather", g.weight(module.weights), ids)
        found = g.op("Mul", found, g.op("Unsqueeze", weights, g.constant([-1])))
    return _flat(g, found, lead)


def _flat(g: Graph, x: str, lead: int) -> str:
    """The axes after the first `lead` as one."""
    return str(g.op("Reshape", x, g.constant([*[0] * lead, -1])))


linear_emitters.update(
    {
        "low-rank-linear": _low_rank_linear,
        "kronecker-linear": _kronecker_linear,
        "tensor-train-linear": _train_linear,
        "tucker-linear": _tucker_linear,
    }
)
embedding_emitters.update(
    {
        "low-rank-embedding": _low_rank_embedding,
        "kronecker-embedding": _kronecker_embedding,
        "tensor-train-embedding": _train_embedding,
        "tucker-embedding": _tucker_embedding,
        "two-component-embedding": _two_component,
        "coded-embedding": _coded,
    }
)
projection_emitters.update(
    {
        "low-rank-embedding": _low_rank_projection,
        "tensor-train-embedding": _train_projection,
        "tucker-embedding": _tucker_projection,
    }
)
