"""Kronecker, tensor-train and Tucker decompositions: exact at full rank, and as good as other people's code."""

from itertools import pairwise
from math import prod

import numpy as np
import pytest
import tensorly
import torch
from tensorly.decomposition import tensor_train as other_train
from tensorly.decomposition import tucker as other_tucker
from torch import Tensor, nn

from affinage.compression.base import compressors
from affinage.compression.decomposition.digits import digits, digits_of_at_least
from affinage.compression.decomposition.kronecker import Kronecker, kronecker_factors
from affinage.compression.decomposition.tensor_train import (
    TensorTrain,
    capped_ranks,
    largest_ranks,
    train_cores,
    train_size,
)
from affinage.compression.decomposition.tucker import Tucker, largest_shares, possible_ranks, tucker
from affinage.models.modules.kronecker import KroneckerEmbedding, KroneckerLinear
from affinage.models.modules.tensor_train import TensorTrainEmbedding, TensorTrainLinear
from affinage.models.modules.tucker import TuckerEmbedding, TuckerLinear

ALL = 10**6


def matrix(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def linear(out: int, in_: int) -> nn.Linear:
    made = nn.Linear(in_, out)
    with torch.no_grad():
        made.weight.copy_(matrix(out, in_))
        made.bias.copy_(matrix(out))
    return made


def table(rows: int, width: int) -> nn.Embedding:
    return nn.Embedding.from_pretrained(matrix(rows, width), padding_idx=1)


def test_sums_of_kronecker_products_are_numpys_and_exact_with_all_terms() -> None:
    weight = matrix(6, 8)
    errors = []
    for terms in (1, 2, 3, 4):
        left, right = kronecker_factors(weight, 2, terms)
        whole = sum(np.kron(a, b) for a, b in zip(left.numpy(), right.numpy(), strict=True))
        errors.append(float(np.square(weight.numpy() - whole).sum()))
    assert errors[-1] < 1e-9 and all(later < earlier for earlier, later in pairwise(errors))


def test_one_kronecker_product_is_found_again() -> None:
    a, b = matrix(3, 4).numpy(), matrix(2, 2).numpy() + 1
    left, right = kronecker_factors(torch.from_numpy(np.kron(a, b)), 2, 1)
    assert np.allclose(np.kron(left[0], right[0]), np.kron(a, b), atol=1e-5)


def check_linear(old: nn.Linear, new: nn.Module, *, atol: float = 1e-4) -> None:
    x = matrix(2, 5, old.in_features)
    assert isinstance(new, KroneckerLinear | TensorTrainLinear | TuckerLinear)
    assert torch.allclose(new(x), torch.nn.functional.linear(x, new.dense(), new.bias), atol=1e-5)
    assert torch.allclose(new.dense(), old.weight, atol=atol)
    assert torch.allclose(new(x), old(x), atol=10 * atol)
    rebuilt = type(new)(**new.settings())  # type: ignore[arg-type]
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {k: v.shape for k, v in new.state_dict().items()}


def check_table(old: nn.Embedding, new: nn.Module, *, atol: float = 1e-4) -> None:
    assert isinstance(new, KroneckerEmbedding | TensorTrainEmbedding | TuckerEmbedding)
    ids = torch.arange(old.num_embeddings).flip(0).view(1, -1)
    assert torch.allclose(new(ids)[0], new.dense().flip(0), atol=1e-5)
    assert torch.allclose(new.dense(), old.weight, atol=atol)
    assert (new.num_embeddings, new.embedding_dim, new.padding_idx) == (old.num_embeddings, old.embedding_dim, 1)
    rebuilt = type(new)(**new.settings())  # type: ignore[arg-type]
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {k: v.shape for k, v in new.state_dict().items()}


@pytest.mark.parametrize(("out", "in_"), [(8, 12), (16, 16), (12, 6)])
def test_maps_are_exact_at_full_rank(out: int, in_: int) -> None:
    old = linear(out, in_)
    left, right = kronecker_factors(old.weight, 2, 4)
    sums = KroneckerLinear(in_, out, 2, 4)
    with torch.no_grad():
        for target, value in zip([sums.left, sums.right, sums.bias], [left, right, old.bias], strict=True):
            assert target is not None
            target.copy_(value)
    check_linear(old, sums)
    for cores in (2, 3):
        rows, columns = digits(out, cores), digits(in_, cores)
        full = capped_ranks([m * n for m, n in zip(rows, columns, strict=True)], ALL)
        new = TensorTrainLinear(rows, columns, full)
        with torch.no_grad():
            for core, value in zip(new.cores, train_cores(old.weight, rows, columns, full), strict=True):
                core.copy_(value)
            assert new.bias is not None
            new.bias.copy_(old.bias)
        check_linear(old, new)
    shape = (*digits(out, 2), *digits(in_, 2))
    core, sides = tucker(old.weight.reshape(shape), shape, 1)
    made = TuckerLinear(shape, shape)
    with torch.no_grad():
        for target, value in zip([made.core, *made.sides, made.bias], [core, *sides, old.bias], strict=True):
            assert target is not None
            target.copy_(value)
    check_linear(old, made)


@pytest.mark.parametrize(("rows", "width"), [(30, 12), (27, 8), (61, 16)])
def test_tables_are_exact_at_full_rank(rows: int, width: int) -> None:
    old = table(rows, width)
    check_table(old, Kronecker(block=2, terms=2)._embedding(old))
    sides, columns = digits_of_at_least(rows, 3), digits(width, 3)
    full = capped_ranks([m * n for m, n in zip(sides, columns, strict=True)], ALL)
    new = TensorTrainEmbedding(rows, sides, columns, full, padding_idx=1)
    padded = torch.cat([old.weight, torch.zeros(prod(sides) - rows, width)])
    with torch.no_grad():
        for core, value in zip(new.cores, train_cores(padded, sides, columns, full), strict=True):
            core.copy_(value)
    check_table(old, new)
    shape = digits(width, 2)
    core, (first, *others) = tucker(old.weight.reshape(rows, *shape), (width, *shape), 0)
    made = TuckerEmbedding(rows, shape, (width, *shape), padding_idx=1)
    with torch.no_grad():
        targets = [made.table.weight, made.core, *made.sides]
        for target, value in zip(targets, [first, core, *others], strict=True):
            target.copy_(value)
    check_table(old, made)


def test_trains_and_tucker_err_as_tensorlys() -> None:
    weight, rows, columns = matrix(12, 18).double(), (2, 2, 3), (3, 2, 3)
    for rank in (1, 2, 4):
        ranks = capped_ranks([6, 4, 9], rank)
        cores = train_cores(weight, rows, columns, ranks)
        new = TensorTrainLinear(rows, columns, ranks).double()
        with torch.no_grad():
            for core, value in zip(new.cores, cores, strict=True):
                core.copy_(value)
            mine = float((new.dense() - weight).square().sum())
        pairs = weight.numpy().reshape(*rows, *columns).transpose(0, 3, 1, 4, 2, 5).reshape(6, 4, 9)
        theirs = tensorly.tt_to_tensor(other_train(pairs, rank=(1, *ranks, 1)))
        assert mine == pytest.approx(float(np.square(theirs - pairs).sum()), rel=1e-6)
    tensor = matrix(4, 5, 6).double()
    core, _sides = tucker(tensor, (2, 3, 3), 50)
    mine = float(tensor.square().sum() - core.square().sum())
    theirs = tensorly.tucker_to_tensor(other_tucker(tensor.numpy(), rank=(2, 3, 3), n_iter_max=50, tol=0))
    assert mine == pytest.approx(float(np.square(theirs - tensor.numpy()).sum()), rel=1e-4)


def test_more_rounds_of_tucker_lose_no_more() -> None:
    tensor = matrix(6, 5, 4)
    kept = [float(tucker(tensor, (2, 2, 2), rounds)[0].square().sum()) for rounds in range(4)]
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(kept)) and kept[-1] > kept[0]


@pytest.mark.parametrize("name", ["tensor-train", "tucker"])
def test_more_parameters_lose_no_more_and_the_share_is_kept(name: str) -> None:
    old, rows = linear(16, 24), table(50, 16)
    for part in (old, rows):
        lost = []
        for keep in (0.2, 0.4, 0.8):
            method = compressors.build(name, {"keep": keep})
            assert isinstance(method, TensorTrain | Tucker)
            new = method._linear(part) if isinstance(part, nn.Linear) else method._embedding(part)
            assert new is not None
            bias = 16 if isinstance(part, nn.Linear) else 0
            assert sum(p.numel() for p in new.parameters()) - bias <= keep * part.weight.numel()
            lost.append(float((new.dense() - part.weight).detach().square().sum()))
        assert lost == sorted(lost, reverse=True)


def test_sides_are_cut_into_digits() -> None:
    assert digits(768, 3) == (8, 8, 12) and digits(768, 2) == (24, 32) and digits(7, 2) == (1, 7)
    assert digits_of_at_least(27, 3) == (3, 3, 3) and digits_of_at_least(28, 3) == (4, 4, 2)
    assert all(prod(digits(n, k)) == n <= prod(digits_of_at_least(n, k)) for n in range(1, 200) for k in (2, 3, 4))


def test_the_largest_rank_within_a_budget_is_the_largest() -> None:
    sides = [6, 10, 8]
    for budget in (24, 100, 200, 400):
        best = max((r for r in range(1, 60) if train_size(sides, capped_ranks(sides, r)) <= budget), default=0)
        assert largest_ranks(sides, budget) == (capped_ranks(sides, best) if best else None)
    assert largest_shares((4, 4, 4), 12) is None and largest_shares((4, 4, 4), 13) == (1, 1, 1)
    assert possible_ranks((100, 2, 3), 1.0) == (6, 2, 3)
