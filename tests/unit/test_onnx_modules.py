"""Compressed modules in graphs: the module's own numbers, from its tensors as they are stored."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from affinage.models.modules.base import Compressed, module_kinds, register_module
from affinage.models.modules.codebook import codebook_matrix
from affinage.models.modules.groups import group_matrix
from affinage.models.modules.int8 import Int8Embedding, int8_scale, to_int8
from affinage.models.modules.matrix import Matrix
from affinage.models.modules.signs import binary_matrix, ternary_matrix
from affinage.models.replacing import linears, replace_embedding_, replace_module_, word_embedding_path
from affinage.runtime.onnx.build import onnx_graph
from affinage.runtime.onnx.graph import Graph
from affinage.runtime.onnx.linear import Emission, Int8, embedding_emitters, linear_emitters
from affinage.runtime.onnx.session import OnnxEngine
from onnx_graphs import graph_outputs, inputs_of, model_of, torch_outputs

OUT, IN, ROWS = 24, 36, 50
SIZES: dict[str, dict[str, Any]] = {
    "int8-linear": {},
    "int8-static-linear": {},
    "group-linear": {"bits": 4, "group": 16},
    "codebook-linear": {"entries": 5, "width": 3, "books": 12},
    "ternary-linear": {},
    "binary-linear": {},
    "low-rank-linear": {"rank": 5},
    "kronecker-linear": {"block": 4, "terms": 3},
    "tensor-train-linear": {"rows": (4, 6), "columns": (6, 6), "ranks": (3,)},
    "tucker-linear": {"shape": (4, 6, 6, 6), "ranks": (2, 3, 4, 2)},
    "int8-embedding": {},
    "group-embedding": {"bits": 4, "group": 16},
    "codebook-embedding": {"entries": 16, "width": 1},
    "ternary-embedding": {},
    "binary-embedding": {},
    "low-rank-embedding": {"rank": 5},
    "kronecker-embedding": {"block": 4, "terms": 3},
    "tensor-train-embedding": {"rows": (7, 8), "columns": (6, 6), "ranks": (3,)},
    "tucker-embedding": {"shape": (6, 6), "ranks": (5, 2, 3)},
    "two-component-embedding": {"columns": 7},
    "coded-embedding": {"length": 6, "alphabet": 9},
}
MATRICES = ("group", "codebook", "ternary", "binary")
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *SIZES.items(),
    *(("group-linear", {"bits": bits, "group": 32}) for bits in (2, 3, 8)),
    *(("group-embedding", {"bits": bits, "group": 32}) for bits in (3, 8)),
    ("codebook-linear", {"entries": 256, "width": 4}),
    *((f"{form}-linear", {"inputs": "dynamic"} | SIZES[f"{form}-linear"]) for form in MATRICES),
    ("group-linear", {"inputs": "dynamic", "bits": 3, "group": 32}),
    ("two-component-embedding", {"columns": 8, "product": True, "placed": True}),
    ("coded-embedding", {"length": 4, "alphabet": 300, "common": True, "weighted": True}),
]
UNSIZED = ("tensor-train-linear", "tucker-linear", "tensor-train-embedding", "tucker-embedding")


def module_of(kind: str, sizes: dict[str, Any]) -> Compressed:
    """One whose every tensor is random."""
    if kind.endswith("-linear"):
        known = {} if kind in UNSIZED else {"in_features": IN, "out_features": OUT}
    else:
        known = {"num_embeddings": ROWS} | ({} if kind in UNSIZED else {"embedding_dim": IN})
    module = module_kinds[kind](**known, **sizes)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
        matrix = getattr(module, "matrix", None)
        if isinstance(matrix, Matrix):
            module.matrix = random_matrix(matrix, kind, random)
        _fill_(module, kind, random)
    return module.eval()


def random_matrix(matrix: Any, kind: str, random: torch.Generator) -> Matrix:
    weight = torch.randn(matrix.rows, matrix.cols, generator=random)
    if kind.startswith("group"):
        return group_matrix(weight, matrix.bits, matrix.group)
    if kind.startswith("codebook"):
        codes = torch.randint(matrix.entries, (matrix.rows, matrix.cols // matrix.width), generator=random)
        return codebook_matrix(codes, matrix.book.data)
    scale = weight.abs().mean(1)
    if kind.startswith("ternary"):
        return ternary_matrix(weight.round().clamp(-1, 1), scale)
    return binary_matrix(weight.sign(), scale)


def _fill_(module: Any, kind: str, random: torch.Generator) -> None:
    """Buffers: codes, scales and cells that mean something."""
    if kind.startswith("int8"):
        weight = torch.randn(module.codes.shape, generator=random)
        module.scale.copy_(int8_scale(weight))
        module.codes.copy_(to_int8(weight, module.scale))
    if kind == "int8-static-linear":
        module.input_scale.copy_(torch.tensor(6 / 255))
        module.input_zero_point.copy_(torch.tensor(120))
    if kind == "two-component-embedding" and module.cells is not None:
        module.cells.copy_(torch.randperm(ROWS, generator=random))
    if kind == "coded-embedding":
        module.codes.copy_(torch.randint(module.alphabet, module.codes.shape, generator=random))


def run_graph(out: Emission, result: str, feed: np.ndarray) -> np.ndarray:
    out.graph.output(result, "y", ["a", "b", "c"])
    engine = OnnxEngine(out.graph.model("test").SerializeToString(), pad_id=0, threads=1)
    return engine.run({"x": feed})[0]


def test_every_kind_with_an_emitter_is_tried() -> None:
    assert set(linear_emitters) | set(embedding_emitters) == set(SIZES) <= set(module_kinds)


@pytest.mark.parametrize(("kind", "sizes"), VARIANTS, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v)))
def test_a_module_in_a_graph_computes_what_it_does_in_torch(kind: str, sizes: dict[str, Any]) -> None:
    module = module_of(kind, sizes)
    out = Emission(Graph(module))
    random = np.random.default_rng(4)
    if kind.endswith("-linear"):
        x = random.normal(size=(2, 3, IN)).astype(np.float32)
        name = out.graph.input("x", ["batch", "length", IN], TensorProto.FLOAT)
        found = run_graph(out, out.add_bias(out.linear(name, module)), x)
        with torch.no_grad():
            wanted = module(torch.from_numpy(x)).numpy()
    else:
        ids = random.integers(ROWS, size=(2, 5))
        found = run_graph(out, out.embedding(out.graph.input("x", ["batch", "length"]), module), ids)
        with torch.no_grad():
            wanted = module(torch.from_numpy(ids)).numpy()
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * float(np.abs(wanted).max()))
    assert float(np.abs(wanted).max()) > 0.1


@pytest.mark.parametrize("kind", [kind for kind in SIZES if kind.endswith("-embedding")])
def test_a_tied_projection_multiplies_with_the_table_as_it_is(kind: str) -> None:
    module = module_of(kind, SIZES[kind])
    out = Emission(Graph(module))
    x = np.random.default_rng(5).normal(size=(2, 3, IN)).astype(np.float32)
    name = out.graph.input("x", ["batch", "length", IN], TensorProto.FLOAT)
    found = run_graph(out, out.rows_product(name, module), x)
    with torch.no_grad():
        wanted = x @ module.dense().numpy().T
    # the int8 table is multiplied in integers: x is rounded to 255 steps
    loose = 2e-2 if kind == "int8-embedding" else 1e-4
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=loose * float(np.abs(wanted).max()))


def test_packed_and_factored_weights_are_stored_as_they_are() -> None:
    """Of a matrix of 24 x 36 numbers, 4 bits, 1.6 bits and so on; nothing as large as the matrix in float32."""
    for kind, sizes in SIZES.items():
        if kind.endswith("-linear"):
            module = module_of(kind, sizes)
            out = Emission(Graph(module))
            out.linear(out.graph.input("x", ["batch", "length", IN], TensorProto.FLOAT), module)
            held = sum(len(one.raw_data) for one in out.graph.model("test").graph.initializer)
            own = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
            assert held <= own + 400, kind  # shapes and steps


@pytest.mark.parametrize("form", MATRICES)
def test_packed_weights_are_multiplied_as_integers_and_stored_as_they_are(form: str) -> None:
    """Of a map whose inputs are rounded no weight is stored but the packed one; a row of zeros stays one."""
    module: Any = module_of(f"{form}-linear", {"inputs": "dynamic"} | SIZES[f"{form}-linear"])
    if form == "ternary":
        module.matrix.scale.data[0] = 0
    out = Emission(Graph(module))
    name = out.graph.input("x", ["batch", "length", IN], TensorProto.FLOAT)
    result = out.add_bias(out.linear(name, module))
    graph = out.graph.model("test").graph
    kinds = {node.op_type for node in graph.node}
    assert "MatMulIntegerToFloat" in kinds and not kinds & {"FusedMatMul", "MatMulNBits"}
    held = sum(len(one.raw_data) for one in graph.initializer)
    own = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
    assert held <= own + 600
    x = np.random.default_rng(6).normal(size=(2, 3, IN)).astype(np.float32)
    found = run_graph(out, result, x)
    with torch.no_grad():
        wanted, exact = module(torch.from_numpy(x)).numpy(), x @ module.dense().numpy().T + module.bias.numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert 0 < float(np.abs(found - exact).max()) < 0.04 * float(np.abs(exact).max())


def test_a_kind_without_an_emitter_goes_in_as_the_matrix_it_stands_for() -> None:
    class Doubled(Compressed):
        def __init__(self, in_features: int, out_features: int) -> None:
            super().__init__()
            self.in_features, self.out_features = in_features, out_features
            self.part = nn.Parameter(torch.ones(out_features, in_features))
            self.bias = None

        def dense(self) -> torch.Tensor:
            return 2 * self.part

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.dense().t()

    kind = "test-doubled"
    if kind not in module_kinds:
        register_module(kind)(Doubled)
    try:
        model = model_of("bert", "token")
        path = linears(model)[0]
        replace_module_(model, path, module_kinds[kind](16, 16))
        inputs = inputs_of("bert")
        for ours, theirs in zip(graph_outputs(onnx_graph(model), inputs), torch_outputs(model, inputs), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=5e-6)
    finally:
        del module_kinds[kind]


def test_a_whole_model_of_compressed_parts_shared_ones_included() -> None:
    model = model_of("camembert", "mlm")
    paths = linears(model)
    for i, path in enumerate(paths):
        linear = model.get_submodule(path)
        assert isinstance(linear, nn.Linear)
        sizes: dict[str, Any] = {"rank": 3} if i % 2 else {"block": 4, "terms": 2}
        kind = "low-rank-linear" if i % 2 else "kronecker-linear"
        made = module_kinds[kind](in_features=linear.in_features, out_features=linear.out_features, **sizes)
        with torch.no_grad():
            for p in made.parameters():
                p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
        replace_module_(model, path, made.eval())
    layers = model.roberta.encoder.layer
    layers[3] = layers[2]
    table = model.get_submodule(word_embedding_path(model))
    assert isinstance(table, nn.Embedding)
    small = Int8Embedding(table.num_embeddings, table.embedding_dim)
    small.scale.copy_(int8_scale(table.weight))
    small.codes.copy_(to_int8(table.weight, small.scale))
    replace_embedding_(model, small)
    inputs = inputs_of("camembert")
    graph = onnx_graph(model)
    (ours,), (theirs,) = graph_outputs(graph, inputs), torch_outputs(model, inputs)
    np.testing.assert_allclose(ours, theirs, atol=3e-2 * float(np.abs(theirs).max()))
    stored = [one.name for one in graph.graph.initializer]
    assert not [name for name in stored if name.startswith("roberta.encoder.layer.3.")]
    assert len([one for one in graph.graph.initializer if one.data_type == TensorProto.INT8]) == 1
    assert isinstance(onnx_graph(model, int8=Int8()), onnx.ModelProto)
