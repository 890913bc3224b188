"""Quantization against the papers' formulas in NumPy float64, against exhaustive search, and against ONNX Runtime."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from affinage.compression.quantization.calibration import BINS, LEVELS, entropy_threshold
from affinage.compression.quantization.clusters import cluster_numbers, cluster_vectors
from affinage.compression.quantization.curvature import gradient_sizes, top_eigenvalues
from affinage.compression.quantization.mixed import allot
from affinage.models.modules.groups import group_matrix
from affinage.models.modules.int8 import int8_embedding, int8_linear, static_int8_linear
from affinage.models.modules.qat import QatEmbedding, QatLinear
from affinage.models.modules.signs import binary, ternary, ternary_by_threshold
from affinage.signals import Batch

RNG = np.random.default_rng(7)
WEIGHT = RNG.normal(size=(6, 20))
BIAS = RNG.normal(size=6)
INPUT = RNG.normal(size=(2, 5, 20)) * 2 + 0.7
ROWS = RNG.normal(size=(4, 6))
IMPORTANCE = RNG.uniform(0.01, 3, size=(4, 6)) ** 3


def linear_of(weight: NDArray[np.float64], bias: NDArray[np.float64]) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.weight.data.copy_(torch.tensor(weight))
    made.bias.data.copy_(torch.tensor(bias))
    return made


def int8_by_formula(x: NDArray[np.float64], low: float, high: float, *, per_channel: bool) -> NDArray[np.float64]:
    """Jacob et al. 2018, eq. 1 and 7, weights symmetric, activations as ONNX defines DynamicQuantizeLinear."""
    s_w = np.abs(WEIGHT).max(axis=1 if per_channel else None) / 127
    q_w = np.rint(WEIGHT.T / s_w).T
    s_x = (max(high, 0) - min(low, 0)) / 255
    z = np.clip(np.rint(0 - min(low, 0) / s_x), 0, 255)
    q_x = np.clip(np.rint(x / s_x) + z, 0, 255)
    return np.einsum("btk,nk->btn", q_x - z, q_w) * (s_x * s_w) + BIAS


@pytest.mark.parametrize("per_channel", [True, False])
def test_dynamic_int8(per_channel: bool) -> None:
    made = int8_linear(linear_of(WEIGHT, BIAS), per_channel=per_channel)
    with torch.no_grad():
        found = made(torch.tensor(INPUT, dtype=torch.float32))
    expected = int8_by_formula(INPUT, INPUT.min(), INPUT.max(), per_channel=per_channel)
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("low", "high"), [(-1.5, 3.0), (0.2, 2.0), (-2.0, -1.0)])
def test_static_int8_cuts_off_what_lies_outside(low: float, high: float) -> None:
    made = static_int8_linear(linear_of(WEIGHT, BIAS), low, high)
    with torch.no_grad():
        found = made(torch.tensor(INPUT, dtype=torch.float32))
    expected = int8_by_formula(INPUT, low, high, per_channel=True)
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_int8_is_that_of_the_dense_map() -> None:
    made = int8_linear(linear_of(WEIGHT, BIAS))
    x = torch.tensor(INPUT, dtype=torch.float32, requires_grad=True)
    with torch.no_grad():
        plain = made(x)
    out = made(x)
    assert torch.equal(out, plain)
    (out * torch.arange(6.0)).sum().backward()
    np.testing.assert_allclose(x.grad[0, 0].numpy(), np.arange(6.0) @ made.dense().numpy(), rtol=1e-5)
    np.testing.assert_allclose(made.bias.grad.numpy(), np.arange(6.0) * 10)


def test_groups_by_the_formula() -> None:
    weight = RNG.normal(size=(3, 40))
    dense = group_matrix(torch.tensor(weight), 4, 16).read().numpy()
    for n, g in product(range(3), range(3)):
        part = weight[n, 16 * g : 16 * g + 16]
        exact = (max(part.max(), 0) - min(part.min(), 0)) / 15
        scale = float(np.float16(exact * (1 + 2**-10) + 6e-8))
        zero = np.rint(-min(part.min(), 0) / scale)
        codes = np.clip(np.rint(part / scale) + zero, 0, 15)
        np.testing.assert_allclose(dense[n, 16 * g : 16 * g + 16], (codes - zero) * scale, rtol=1e-6)
        assert exact <= scale <= exact * 1.002


@pytest.mark.parametrize("weighed", [True, False])
def test_ternary_is_the_best_of_all_choices(weighed: bool) -> None:
    d = IMPORTANCE if weighed else np.ones_like(ROWS)
    codes, scale = ternary(torch.tensor(ROWS), torch.tensor(IMPORTANCE) if weighed else None)
    for n, row in enumerate(ROWS):
        costs = []
        for signs in product((-1, 0, 1), repeat=len(row)):
            t = np.array(signs)
            alpha = max(0.0, (d[n] * row * t).sum() / max((d[n] * t * t).sum(), 1e-9))
            costs.append((d[n] * (row - alpha * t) ** 2).sum())
        ours = (d[n] * (row - float(scale[n]) * codes[n].numpy()) ** 2).sum()
        assert ours == pytest.approx(min(costs), rel=1e-5)


@pytest.mark.parametrize("weighed", [True, False])
def test_binary_is_the_best_of_all_choices(weighed: bool) -> None:
    d = IMPORTANCE if weighed else np.ones_like(ROWS)
    codes, scale = binary(torch.tensor(ROWS), torch.tensor(IMPORTANCE) if weighed else None)
    for n, row in enumerate(ROWS):
        costs = []
        for signs in product((-1, 1), repeat=len(row)):
            alpha = max(0.0, (d[n] * row * np.array(signs)).sum() / d[n].sum())
            costs.append((d[n] * (row - alpha * np.array(signs)) ** 2).sum())
        ours = (d[n] * (row - float(scale[n]) * codes[n].numpy()) ** 2).sum()
        assert ours == pytest.approx(min(costs), rel=1e-5)


def test_rows_without_importance_are_quantized_as_if_all_mattered_alike() -> None:
    known = torch.tensor(IMPORTANCE)
    known[1] = 0
    for rounded in (ternary, binary):
        codes, scale = rounded(torch.tensor(ROWS), known)
        alone, plain = rounded(torch.tensor(ROWS[1:2]))
        assert torch.equal(codes[1:2], alone) and torch.equal(scale[1:2], plain)


def test_the_threshold_of_ternary_weight_networks() -> None:
    codes, scale = ternary_by_threshold(torch.tensor(ROWS))
    for n, row in enumerate(ROWS):
        above = np.abs(row) > 0.7 * np.abs(row).mean()
        np.testing.assert_array_equal(codes[n].numpy(), np.sign(row) * above)
        assert float(scale[n]) == pytest.approx(np.abs(row)[above].mean(), rel=1e-6)


def test_numbers_go_to_the_nearest_centre_and_centres_to_their_mean() -> None:
    values = np.concatenate([RNG.normal(-3, 0.1, 50), RNG.normal(0, 0.1, 80), RNG.normal(5, 0.1, 20)])
    codes, centres = cluster_numbers(torch.tensor(values), 3)
    assert codes.tolist() == [int(np.abs(centres.numpy() - v).argmin()) for v in values]
    np.testing.assert_allclose(centres, [values[:50].mean(), values[50:130].mean(), values[130:].mean()], rtol=1e-6)


def test_vectors_go_to_the_nearest_centre_and_centres_to_their_mean() -> None:
    points = RNG.normal(size=(200, 3))
    codes, centres = cluster_vectors(torch.tensor(points), 7, seed=3, steps=500)
    away = ((points[:, None] - centres.double().numpy()) ** 2).sum(-1)
    assert codes.tolist() == away.argmin(1).tolist()
    for k in range(7):
        np.testing.assert_allclose(centres[k], points[codes.numpy() == k].mean(0), rtol=1e-4, atol=1e-5)
    again = cluster_vectors(torch.tensor(points), 7, seed=3, steps=500)
    assert torch.equal(again[0], codes) and torch.equal(again[1], centres)


def test_as_many_centres_as_different_vectors_lose_nothing() -> None:
    different = torch.tensor(RNG.normal(size=(6, 4)), dtype=torch.float32)
    points = different[torch.tensor([0, 1, 2, 3, 4, 5] * 5)]
    codes, centres = cluster_vectors(points, 6, seed=0)
    torch.testing.assert_close(centres[codes], points)


def texts(count: int = 2) -> list[Batch]:
    """Batches that differ, of 64 tokens."""
    return [Batch(torch.full((4, 16), i + 1), torch.ones(4, 16, dtype=torch.bool)) for i in range(count)]


class Curved(nn.Module):
    """Loss i / 2 · wᵀ A w + bᵀ v: a Hessian that is known, and none."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(3))
        root = RNG.normal(size=(4, 4))
        self.curve = root @ root.T - 2 * np.eye(4)

    def loss(self, batch: Batch) -> Tensor:
        times = batch.input_ids[0, 0].float()
        curve = torch.tensor(self.curve, dtype=torch.float32)
        return times * (self.w @ curve @ self.w / 2) + times * self.v.sum()


def test_the_largest_eigenvalue_of_a_known_hessian() -> None:
    model: Any = Curved()
    found = top_eigenvalues(model, [model.w, model.v], texts(), lambda m, b: m.loss(b), seed=0, steps=200, close=1e-3)  # type: ignore[attr-defined]
    values = np.linalg.eigvalsh(model.curve)
    largest = values[np.abs(values).argmax()]
    np.testing.assert_allclose(found[:, 0], [largest, 2 * largest], rtol=2e-2)
    assert found[:, 1].tolist() == [0, 0]
    assert model.w.grad is None


def test_gradient_sizes_are_roots_of_mean_squares() -> None:
    model: Any = Curved()
    found = gradient_sizes(model, [model.w, model.v], texts(), lambda m, b: m.loss(b))  # type: ignore[attr-defined]
    gradient = model.curve @ np.ones(4)
    np.testing.assert_allclose(found[0], np.abs(gradient) * np.sqrt((1 + 4) / 2), rtol=1e-5)
    np.testing.assert_allclose(found[1], np.full(3, np.sqrt(2.5)), rtol=1e-6)


def test_bits_go_where_they_save_most_and_fit_the_mean() -> None:
    costs, sizes, choices = [[64, 16, 0.25], [4, 1, 0.01], [5, 1, 0.01], [4, 1, 0.01]], [10, 10, 20, 10], [2, 3, 8]
    best = min(
        (sum(costs[i][k] for i, k in enumerate(ks)), ks)
        for ks in product(range(3), repeat=4)
        if sum(choices[k] * sizes[i] for i, k in enumerate(ks)) <= 3.6 * sum(sizes)
    )
    assert allot(costs, sizes, choices, 3.6) == [choices[k] for k in best[1]]
    assert allot(costs, sizes, choices, 2.0) == [2, 2, 2, 2]
    assert allot(costs, sizes, choices, 8.0) == [8, 8, 8, 8]


def test_entropy_keeps_an_even_spread_and_cuts_off_a_lone_outlier() -> None:
    even = np.full(BINS, 10.0)
    assert entropy_threshold(even) == 1.0
    bell = np.rint(1e6 * np.exp(-0.5 * (np.arange(320) / 60) ** 2))
    bell[-1] = 1
    cut = entropy_threshold(bell)
    assert cut < 0.9
    assert cut == pytest.approx(best_cut(bell))
    assert entropy_threshold(np.zeros(BINS)) == 1.0


def best_cut(counts: NDArray[np.float64]) -> float:
    """Migacz 2017, slide 38, bin by bin."""
    best = (float("inf"), 0)
    for i in range(LEVELS, len(counts) + 1, 8):
        p = [float(c) for c in counts[:i]]
        p[-1] += float(sum(counts[i:]))
        q = [0.0] * i
        for level in range(LEVELS):
            bins = [b for b in range(i) if b * LEVELS // i == level]
            filled = [b for b in bins if counts[b] > 0]
            for b in filled:
                q[b] = float(sum(counts[c] for c in bins)) / len(filled)
        pairs = [(a / sum(p), b / sum(q)) for a, b in zip(p, q, strict=True) if a > 0]
        if all(b > 0 for _, b in pairs):
            best = min(best, (sum(a * float(np.log(a / b)) for a, b in pairs), i))
    return best[1] / len(counts)


@pytest.mark.parametrize("weights", ["int8", "int4", "ternary", "binary"])
def test_what_is_packed_computes_what_was_trained(weights: Any) -> None:
    table = QatEmbedding(9, 20, 1, weights)
    table.weight.data.copy_(torch.tensor(RNG.normal(size=(9, 20))))
    ids = torch.tensor([[0, 8, 3], [1, 1, 2]])
    torch.testing.assert_close(table.packed()(ids), table(ids), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(table.packed().dense(), table.dense(), rtol=1e-6, atol=1e-7)
    x = torch.tensor(INPUT, dtype=torch.float32)
    for inputs in ("static", "dynamic") if weights == "int8" else ("float",):
        made = QatLinear(20, 6, True, weights, inputs)  # type: ignore[arg-type]
        made.load_state_dict(linear_of(WEIGHT, BIAS).state_dict(), strict=False)
        made.low.fill_(-3.0)
        made.high.fill_(4.0)
        torch.testing.assert_close(made.eval().packed()(x), made(x), rtol=1e-5, atol=1e-5)
        made(x).sum().backward()
        assert made.weight.grad is not None and bool(made.weight.grad.any())


def test_ranges_move_by_a_hundredth_while_training_alone() -> None:
    made = QatLinear(20, 6, True, "int8", "static")
    made.high.fill_(2.0)
    x = torch.tensor(INPUT, dtype=torch.float32)
    made.train()(x)
    assert float(made.low) == pytest.approx(0.01 * INPUT.min(), rel=1e-5)
    assert float(made.high) == pytest.approx(0.99 * 2 + 0.01 * INPUT.max(), rel=1e-5)
    before = float(made.low)
    made.eval()(x)
    assert float(made.low) == before


def onnx_runtime(nodes: list[Any], inputs: dict[str, NDArray[Any]], tensors: dict[str, Tensor]) -> NDArray[np.float32]:
    """The output y of a small graph, computed by ONNX Runtime."""
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    kinds = {np.dtype(np.int64): onnx.TensorProto.INT64, np.dtype(np.float32): onnx.TensorProto.FLOAT}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, takes, gives, **more) for op, takes, gives, more in nodes],
        "graph",
        [onnx.helper.make_tensor_value_info(name, kinds[value.dtype], None) for name, value in inputs.items()],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(value.detach().contiguous().numpy(), name) for name, value in tensors.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, inputs)[0]
    return found


MICROSOFT = {"domain": "com.microsoft"}


def test_onnx_runtime_computes_the_same_int8() -> None:
    x = INPUT.astype(np.float32)
    plain = linear_of(WEIGHT, BIAS)
    dynamic, static = int8_linear(plain), static_int8_linear(plain, -2.0, 3.0)
    tensors = {"w": dynamic.codes.t(), "s": dynamic.scale, "b": plain.bias}
    node = ("DynamicQuantizeMatMul", ["x", "w", "s", "", "b"], ["y"], MICROSOFT)
    with torch.no_grad():
        np.testing.assert_allclose(onnx_runtime([node], {"x": x}, tensors), dynamic(torch.tensor(x)), atol=1e-5)
        tensors |= {"xs": static.input_scale, "xz": static.input_zero_point}
        nodes = [
            ("QuantizeLinear", ["x", "xs", "xz"], ["q"], {}),
            ("MatMulIntegerToFloat", ["q", "w", "xs", "s", "xz", "", "b"], ["y"], MICROSOFT),
        ]
        np.testing.assert_allclose(onnx_runtime(nodes, {"x": x}, tensors), static(torch.tensor(x)), atol=1e-5)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_onnx_runtime_reads_groups_as_they_are_stored(bits: int) -> None:
    x = INPUT.astype(np.float32)
    made = group_matrix(torch.tensor(WEIGHT), bits, 16)
    tensors = {
        "w": made.codes.unflatten(1, (made.groups, -1)),
        "s": made.scale.float(),
        "z": made.zero_points,
    }
    more = {**MICROSOFT, "K": 20, "N": 6, "bits": bits, "block_size": 16}
    found = onnx_runtime([("MatMulNBits", ["x", "w", "s", "z"], ["y"], more)], {"x": x}, tensors)
    np.testing.assert_allclose(found, x @ made.read().numpy().T, atol=1e-5)


def test_onnx_runtime_reads_tables_as_they_are_stored() -> None:
    weight = torch.tensor(RNG.normal(size=(9, 20)))
    ids = np.array([[0, 8, 3], [1, 1, 2]])
    made = int8_embedding(weight)
    nodes = [
        ("Gather", ["w", "x"], ["q"], {}),
        ("Gather", ["s", "x"], ["scale"], {}),
        ("Cast", ["q"], ["f"], {"to": 1}),
        ("Mul", ["f", "scale"], ["y"], {}),
    ]
    found = onnx_runtime(nodes, {"x": ids}, {"w": made.codes, "s": made.scale[:, None]})
    np.testing.assert_allclose(found, made(torch.tensor(ids)), atol=1e-6)
    packed = group_matrix(weight, 4, 16)
    more = {**MICROSOFT, "gather_axis": 0, "quantize_axis": 1, "block_size": 16, "bits": 4}
    tensors = {"w": packed.codes, "s": packed.scale.float(), "z": packed.zero_points}
    found = onnx_runtime([("GatherBlockQuantized", ["w", "x", "s", "z"], ["y"], more)], {"x": ids}, tensors)
    np.testing.assert_allclose(found[..., :20], packed.read()[ids], atol=1e-6)


@pytest.mark.parametrize("width", [1, 2, 3, 7])
@pytest.mark.parametrize("outputs", [1, 5, 16])
def test_narrow_maps_are_multiplied_exactly(width: int, outputs: int) -> None:
    """A factor of rank 1 has one input; torch 2.13 leaves its integer product unwritten."""
    weight, x = RNG.normal(size=(outputs, width)), RNG.normal(size=(3, width))
    made = static_int8_linear(linear_of(weight, RNG.normal(size=outputs)), float(x.min()), float(x.max()))
    scale, zero = float(made.input_scale), int(made.input_zero_point)
    q = np.clip(np.rint(x / np.float32(scale)) + zero, 0, 255)
    sums = (q - zero) @ made.codes.numpy().astype(np.float64).T
    assert made.bias is not None
    expected = sums * scale * made.scale.numpy() + made.bias.detach().numpy()
    for _ in range(2):
        with torch.no_grad():
            said = made(torch.tensor(x, dtype=torch.float32))
        assert np.allclose(said.numpy(), expected, rtol=1e-4, atol=1e-6)
