"""Which weights go, by the papers' formulas in NumPy; ⌊s n⌋ of them, whatever the method."""

from math import floor
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from affinage.compression.pruning.damage import fisher_of
from affinage.compression.pruning.sparsity import smallest
from affinage.compression.pruning.trained import cubic, masked_modules
from affinage.errors import InputError
from affinage.models.modules.masked import ScoredLinear
from affinage.models.modules.sparse import SparseEmbedding, SparseLinear, sparse_linear
from affinage.models.replacing import linears, word_embedding_path
from compressing import batches, built, loss, resources, sharp_model
from tiny import tiny_model

STATIC = {
    "prune-magnitude": {},
    "prune-magnitude-uniform": {},
    "prune-magnitude-distribution": {},
    "prune-obd": {},
    "prune-blocks": {"rows": 2, "columns": 4},
}


def weights(model: Any) -> dict[str, np.ndarray]:
    return {path: model.get_submodule(path).weight.detach().double().numpy() for path in linears(model)}


def zeros(model: Any) -> int:
    return sum(int((weight == 0).sum()) for weight in weights(model).values())


def middle(*parts: np.ndarray) -> float:
    """The largest of the smaller half of all entries."""
    flat = np.sort(np.concatenate([part.ravel() for part in parts]))
    return float(flat[len(flat) // 2 - 1])


@pytest.mark.parametrize("name", STATIC)
@pytest.mark.parametrize("sparsity", [0.29, 0.5, 0.901])
def test_as_many_are_zero_as_asked_for_and_the_rest_is_as_it_was(name: str, sparsity: float) -> None:
    model = sharp_model("distilbert")
    pruned = built(name, sparsity=sparsity, **STATIC[name]).apply(model, resources("distilbert"))
    before, after = weights(model), weights(pruned)
    counts = [weight.size for weight in before.values()]
    match name:
        case "prune-magnitude-uniform":
            expected = sum(floor(sparsity * count) for count in counts)
        case "prune-blocks":
            expected = 8 * floor(sparsity * sum(counts) / 8)
        case _:
            expected = floor(sparsity * sum(counts))
    assert zeros(pruned) == expected
    assert all(
        np.array_equal(after[path][after[path] != 0], weight[after[path] != 0]) for path, weight in before.items()
    )
    assert all(isinstance(pruned.get_submodule(path), SparseLinear) for path in before)


def test_the_three_ways_of_sharing_zeros_out() -> None:
    model = sharp_model("bert")
    before = weights(model)
    for i, weight in enumerate(before.values()):
        model.get_submodule(list(before)[i]).weight.data *= 1 + i % 3
        weight *= 1 + i % 3
    sizes = {path: np.abs(weight) for path, weight in before.items()}
    scaled = {path: np.abs(weight) / weight.std() for path, weight in before.items()}
    blind, by_deviation = middle(*sizes.values()), middle(*scaled.values()) * (1 + 1e-6)
    gone = {
        "prune-magnitude": {path: size <= blind for path, size in sizes.items()},
        "prune-magnitude-uniform": {path: size <= middle(size) for path, size in sizes.items()},
        "prune-magnitude-distribution": {path: size <= by_deviation for path, size in scaled.items()},
    }
    for name, expected in gone.items():
        after = weights(built(name).apply(model, resources("bert")))
        assert all(np.array_equal(after[path] == 0, expected[path]) for path in before), name


def test_damage_is_half_of_squared_weight_and_squared_gradient() -> None:
    model, given = sharp_model("bert"), resources("bert")
    path = linears(model)[3]
    found = fisher_of(model, [path], given)[path].double().numpy()
    gradients = []
    for batch in batches("bert", rows=1):
        model.zero_grad()
        loss(model, batch).backward()  # type: ignore[no-untyped-call]
        gradients.append(model.get_submodule(path).weight.grad.double().numpy().copy())
    np.testing.assert_allclose(found, np.mean(np.square(gradients), axis=0), rtol=1e-3, atol=1e-10)
    with pytest.raises(InputError, match="--task and --data"):
        built("prune-obd").apply(model, type(given)())


def test_blocks_and_patterns() -> None:
    model = sharp_model("bert")
    before = weights(model)
    pruned = weights(built("prune-blocks", rows=4, columns=8).apply(model, resources("bert")))
    largest = {path: np.abs(w).reshape(w.shape[0] // 4, 4, -1, 8).max((1, 3)) for path, w in before.items()}
    order = np.sort(np.concatenate([part.ravel() for part in largest.values()]))
    for path, weight in before.items():
        gone = np.kron(largest[path] <= order[len(order) // 2 - 1], np.ones((4, 8))) > 0
        assert np.array_equal(pruned[path], np.where(gone, 0, weight))
    for n, m in ((2, 4), (1, 16)):
        pruned = weights(built("prune-n-m", n=n, m=m).apply(model, resources("bert")))
        for path, weight in before.items():
            groups = np.abs(weight).reshape(-1, m)
            kept = groups >= np.sort(groups, axis=1)[:, [-n]]
            assert np.array_equal(pruned[path], np.where(kept.reshape(weight.shape), weight, 0))


def test_of_equal_weights_the_first_go() -> None:
    assert smallest(torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0]), 3).tolist() == [True, True, False, True, False]
    assert not smallest(torch.ones(4), 0).any() and smallest(torch.ones(4), 4).all()


@pytest.mark.parametrize("block", [(1, 1), (3, 2)])
def test_a_sparse_map_stands_for_the_zeroed_one_and_stays_so_when_trained(block: tuple[int, int]) -> None:
    random = torch.Generator().manual_seed(0)
    plain = nn.Linear(10, 9)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    kept = torch.rand(9 // block[0], 10 // block[1], generator=random) > 0.6
    wide = kept.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    made = sparse_linear(plain, kept)
    expected = torch.where(wide, plain.weight, 0.0)
    assert torch.equal(made.dense(), expected) and torch.equal(made.weight, expected)
    assert made.mask.numel() == -(-kept.numel() // 8) and made.numbers() == int(wide.sum()) + 9
    again = SparseLinear(**made.settings())  # type: ignore[arg-type]
    again.load_state_dict(made.state_dict())
    x = torch.randn(3, 10, generator=random)
    torch.testing.assert_close(again(x), x @ expected.t() + plain.bias)
    made(x).square().sum().backward()
    torch.optim.SGD(made.parameters(), lr=0.1).step()
    with torch.no_grad():
        moved = made(x), made.weight
    assert torch.equal(moved[1] != 0, wide) and not torch.equal(moved[1], expected)
    torch.testing.assert_close(moved[0], x @ moved[1].t() + made.bias)


def test_embeddings_are_pruned_where_asked_and_the_projection_with_them() -> None:
    model = tiny_model("camembert")
    pruned = built("prune-magnitude", embeddings=True).apply(model, resources("camembert"))
    table = pruned.get_submodule(word_embedding_path(pruned))
    assert isinstance(table, SparseEmbedding)
    assert table.numbers() < 0.8 * table.rows * table.columns
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(table(ids)[0], table.dense()[5:8])
    assert torch.equal(pruned.lm_head.decoder.weight, table.dense())


@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("prune-blocks", {"rows": 5}, "rows=5 does not divide the 16"),
        ("prune-n-m", {"m": 3}, "m=3 does not divide the 16"),
        ("prune-n-m", {"n": 4}, "n=4 of m=4 leaves everything"),
    ],
)
def test_a_pattern_that_does_not_fit_is_refused(name: str, params: dict[str, int], said: str) -> None:
    model, given = tiny_model("bert", "sequence"), resources("bert")
    with pytest.raises(InputError, match=said):
        built(name, **params).apply(model, given)
    once = built("prune-magnitude").apply(model, given)
    with pytest.raises(InputError, match="is a SparseLinear: make weights sparse before"):
        built("prune-magnitude").apply(once, given)


def test_the_cubic_schedule() -> None:
    """s_t = s_f + (s_0 - s_f) (1 - (t - t_0) / (n dt))^3 with s_0 = 0, s_f = 1."""
    for step, expected in ((0, 0), (10, 0), (20, 1 - 0.75**3), (30, 1 - 0.5**3), (50, 1), (99, 1)):
        assert cubic(step, 100, start=0.1, end=0.5) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["prune-gradual", "prune-movement", "prune-movement-soft"])
def test_ever_more_weights_go_in_training(name: str) -> None:
    model, given = sharp_model("bert"), resources("bert")
    soft = {"penalty": 1e6, "sparsity": 0.8} if name == "prune-movement-soft" else {"sparsity": 0.8}
    method = built(name, start=0.2, end=0.8, **soft)
    prepared = method.prepare(model, given).train()
    optimizer = torch.optim.AdamW(prepared.parameters(), lr=1e-3)
    count, shares = sum(weight.size for weight in weights(model).values()), []
    for step in range(10):
        method.on_step(prepared, step, 10)
        optimizer.zero_grad()
        shares.append(sum(int((~module.mask).sum()) for module in masked_modules(prepared).values()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step)
            loss(prepared, given.calibration[step % 2]).backward()  # type: ignore[index, no-untyped-call]
        optimizer.step()
    finished = method.finish(prepared)
    assert shares == sorted(shares) and shares[0] == 0 and not finished.training
    if name == "prune-movement-soft":
        assert 0 < zeros(finished) <= 0.8 * count
    else:
        assert shares == [floor(0.8 * cubic(step, 10, start=0.2, end=0.8) * count + 1e-9) for step in range(10)]
        assert zeros(finished) == floor(0.8 * count)
    with pytest.raises(InputError, match=r"start=0.9 is to come before end=0.7"):
        built(name, start=0.9).prepare(model, given)


def test_scores_sum_up_where_weights_move() -> None:
    """One step of plain gradient descent from S = 0: S = -rate speed^2 (dL/dW' * W), W' what the map computes with."""
    random = np.random.default_rng(0)
    w, x, mask = random.normal(size=(3, 4)), random.normal(size=(5, 4)), random.random((3, 4)) > 0.5
    module = ScoredLinear(4, 3, False, speed=10.0)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(w))
        module.mask.copy_(torch.tensor(mask))
    module.penalty = 0.5
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):  # the penalty counts once a step, however many passes it has
        module(torch.tensor(x, dtype=torch.float32)).square().sum().backward()
    optimizer.step()
    to_used = 2 * (2 * (x @ (w * mask).T).T @ x)
    expected = -0.1 * 100 * (to_used * w + 0.5 * 0.25)
    np.testing.assert_allclose(module.importance().detach().numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(module.weight.detach().numpy(), w - 0.1 * to_used * mask, rtol=1e-4)


def test_a_sparse_model_can_be_quantized_and_its_zeros_stay() -> None:
    model, given = sharp_model("bert"), resources("bert")
    pruned = built("prune-magnitude", sparsity=0.7).apply(model, given)
    packed = built("int8").apply(pruned, given)
    for path, weight in weights(pruned).items():
        module = packed.get_submodule(path)
        assert not isinstance(module, SparseLinear)
        assert not module.dense()[torch.tensor(weight == 0)].any()
        np.testing.assert_allclose(module.dense().detach().numpy(), weight, atol=np.abs(weight).max() / 200)
