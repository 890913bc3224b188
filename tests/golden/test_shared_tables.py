"""Shared and coded embedding tables against closed forms, and what their fitting promises."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from affinage.compression.clustering import centres, lines, nearest
from affinage.compression.sharing.light_rnn import _matching
from affinage.compression.sharing.quotient_remainder import two_components
from affinage.compression.sharing.tables import fit, placed, smallest_columns
from affinage.models.modules.coded import CodedEmbedding, smallest_integer
from affinage.models.modules.two_component import TwoComponentEmbedding


def points(rows: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_sums_on_a_full_grid_are_row_mean_plus_column_mean() -> None:
    table = points(12, 3)
    left, right = fit(table, torch.arange(12), 4, product=False)
    grid = table.double().numpy().reshape(3, 4, 3)
    wanted = grid.mean(1, keepdims=True) + grid.mean(0, keepdims=True) - grid.mean((0, 1))
    assert np.allclose((left[:, None] + right).numpy(), wanted)


def test_products_on_a_full_grid_are_the_first_singular_pair_of_each_dimension() -> None:
    table = points(20, 3) + 1
    left, right = fit(table, torch.arange(20), 5, product=True, rounds=200)
    grid = table.double().numpy().reshape(4, 5, 3)
    for h in range(3):
        u, s, v = np.linalg.svd(grid[:, :, h])
        assert np.allclose(np.outer(left[:, h], right[:, h]), s[0] * np.outer(u[:, 0], v[0]), atol=1e-6)
    assert torch.allclose(left.norm(dim=0), right.norm(dim=0))


@pytest.mark.parametrize("product", [False, True])
def test_a_table_that_is_made_so_is_found_again_where_the_last_row_is_not_full(product: bool) -> None:
    row, column = points(4, 3, 1).abs() + 0.5, points(5, 3, 2).abs() + 0.5
    cells = torch.arange(18)
    rows, columns = row[cells // 5], column[cells % 5]
    old = nn.Embedding.from_pretrained(rows * columns if product else rows + columns, padding_idx=1)
    new = two_components(old, cells, 5, product=product, placed=False)
    assert torch.allclose(new.dense(), old.weight, atol=1e-3)
    ids = torch.tensor([[3, 17], [0, 5]])
    assert torch.equal(new(ids), new.dense()[ids])


def test_every_token_has_a_cell_of_its_own_and_matching_never_makes_it_worse() -> None:
    table = points(47, 6)
    errors = []
    for rounds in range(4):
        cells = placed(table, 7, rounds, _matching)
        assert len(set(cells.tolist())) == 47 and int(cells.min()) >= 0 and int(cells.max()) < 49
        left, right = fit(table, cells, 7, product=False)
        errors.append(float((left[cells // 7] + right[cells % 7] - table).square().sum()))
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(errors))
    left, right = fit(table, torch.arange(47), 7, product=False)
    by_id = float((left[torch.arange(47) // 7] + right[torch.arange(47) % 7] - table).square().sum())
    assert errors[-1] < errors[0] < by_id


def test_shuffled_tokens_of_a_table_that_is_made_so_are_placed_well() -> None:
    row, column = 5 * points(6, 4, 1), points(6, 4, 2)
    table = (row[:, None] + column).reshape(36, 4)[torch.randperm(36, generator=torch.Generator().manual_seed(0))]
    cells = placed(table, 6, 5, _matching)
    left, right = fit(table, cells, 6, product=False)
    lost = (left[cells // 6] + right[cells % 6] - table).square().sum() / (table - table.mean(0)).square().sum()
    assert lost < 0.02


def test_columns_take_the_share_that_is_kept() -> None:
    assert smallest_columns(10_000, 0.0) == 100
    for keep in (0.05, 0.25, 0.6):
        columns = smallest_columns(10_000, keep)
        assert columns + -(-10_000 // columns) <= keep * 10_000 < columns + 1 + -(-10_000 // (columns + 1)) + 1


def test_a_module_with_placed_tokens_is_made_again_from_its_settings() -> None:
    old = nn.Embedding.from_pretrained(points(10, 4))
    new = two_components(old, torch.arange(9, -1, -1), 4, product=False, placed=True)
    again = TwoComponentEmbedding(**new.settings())  # type: ignore[arg-type]
    again.load_state_dict(new.state_dict())
    assert torch.equal(again.dense(), new.dense())
    assert new.cells is not None and new.cells.tolist() == list(range(9, -1, -1))


def test_clusters_lose_no_more_from_round_to_round_and_nothing_where_there_are_enough() -> None:
    x = points(60, 3)
    lost = []
    for rounds in range(5):
        codes, found = centres(x, 7, iterations=rounds, seed=1)
        lost.append(float((x - found[codes]).square().sum()))
        distances = np.square(x.numpy()[:, None] - found.numpy()).sum(-1)
        assert codes.tolist() == distances.argmin(1).tolist()
    assert all(later <= earlier + 1e-6 for earlier, later in pairwise(lost))
    codes, found = centres(x, 60, iterations=2, seed=1)
    assert torch.allclose(found[codes], x)


def test_lines_lose_no_more_from_round_to_round_and_find_points_on_lines() -> None:
    x = points(80, 4)
    lost = []
    for rounds in range(6):
        codes, weights, found = lines(x, 6, iterations=rounds, seed=2)
        assert torch.allclose(found.norm(dim=1), torch.ones(6))
        lost.append(float((x - weights[:, None] * found[codes]).square().sum()))
    assert all(later <= earlier + 1e-5 for earlier, later in pairwise(lost))
    directions = nn.functional.normalize(points(3, 4, 5), dim=1)
    on = directions[torch.arange(30) % 3] * points(30, 1, 6)
    codes, weights, found = lines(on, 20, iterations=10, seed=0)
    assert torch.allclose(weights[:, None] * found[codes], on, atol=1e-4)


def test_nearest_in_chunks_is_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    x, found = points(23, 3), points(5, 3, 1)
    found[3] = found[1]  # of equals the first
    whole = nearest(x, found)
    assert torch.equal(whole, torch.cdist(x, found).argmin(1)) and 3 not in whole
    codes = lines(x, 5, iterations=0, seed=0)[0]
    monkeypatch.setattr("affinage.compression.clustering._POINTS", 10)
    monkeypatch.setattr("affinage.compression.clustering._CENTRES", 2)
    assert torch.equal(nearest(x, found), whole) and torch.equal(lines(x, 5, iterations=0, seed=0)[0], codes)


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_are_the_letters_of_their_word(common: bool, weighted: bool) -> None:
    random = torch.Generator().manual_seed(0)
    new = CodedEmbedding(9, 6, 3, 4, common=common, weighted=weighted)
    with torch.no_grad():
        new.letters.copy_(torch.randn(new.letters.shape, generator=random))
        new.codes.copy_(torch.randint(4, (9, 3), generator=random))
        if new.weights is not None:
            new.weights.copy_(torch.randn(9, 3, generator=random))
    for token in range(9):
        letters = [new.letters[0 if common else i, int(new.codes[token, i])] for i in range(3)]
        scales = [1.0] * 3 if new.weights is None else new.weights[token].tolist()
        wanted = torch.cat([scale * letter for scale, letter in zip(scales, letters, strict=True)])
        assert torch.allclose(new.dense()[token], wanted)
        assert torch.allclose(new(torch.tensor([[token]]))[0, 0], wanted)
    again = CodedEmbedding(**new.settings())  # type: ignore[arg-type]
    again.load_state_dict(new.state_dict())
    assert torch.equal(again.dense(), new.dense())
    assert [smallest_integer(n) for n in (256, 257, 40_000)] == [torch.uint8, torch.int16, torch.int32]
