"""Packing loses nothing, repeats nothing and overfills nothing, whatever the texts' lengths."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affinage.data.masking import Masker
from affinage.data.packing import cut, pack
from affinage.data.rows import EpochSampler, PackedRows, to_batch
from affinage.data.tokens import TokenStore
from affinage.recipe import Masking
from affinage.signals import IGNORED
from tiny import SENTENCES, tiny_tokenizer

CLS, SEP, PAD, MASK, FIRST = 0, 2, 1, 4, 5


def store_of(lengths: list[int]) -> TokenStore:
    """Texts whose tokens are numbered through the corpus, so that each can be found again."""
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    return TokenStore(np.arange(FIRST, FIRST + starts[-1], dtype=np.int32), starts)


def rows_of(store: TokenStore, row_length: int, *, seed: int = 0, variants: int | None = None) -> PackedRows:
    size = FIRST + store.tokens
    special = np.arange(size) < FIRST
    masker = Masker(Masking(variants=variants), MASK, special, np.ones(size, dtype=bool))
    return PackedRows(store, masker, cls_id=CLS, sep_id=SEP, pad_id=PAD, row_length=row_length, seed=seed)


LENGTHS = st.lists(st.integers(0, 30), max_size=25)


@given(LENGTHS, st.integers(1, 12))
def test_a_cut_keeps_every_token_once_and_in_order(lengths: list[int], length: int) -> None:
    pieces = cut(store_of(lengths), length)
    assert [i for begin, end in pieces for i in range(begin, end)] == list(range(sum(lengths)))
    assert all(0 < end - begin <= length for begin, end in pieces)
    starts = set(np.cumsum([0, *lengths]).tolist())
    assert all(not starts & set(range(begin + 1, end)) for begin, end in pieces)  # no piece crosses into another text


@given(st.lists(st.integers(1, 12), max_size=60), st.integers(12, 40))
def test_every_piece_is_in_one_row_and_no_row_overflows(lengths: list[int], capacity: int) -> None:
    rows = pack(np.asarray(lengths, dtype=np.int64), capacity)
    assert sorted(piece for row in rows for piece in row) == list(range(len(lengths)))
    filled = [sum(lengths[piece] for piece in row) for row in rows]
    assert all(0 < total <= capacity for total in filled)
    # Best fit: no two rows could be one.
    assert len(rows) < 2 or sum(sorted(filled)[:2]) > capacity


def test_best_fit_takes_the_fullest_row_that_has_room() -> None:
    assert pack(np.array([6, 8, 2, 4, 3]), 10) == [[0, 3], [1, 2], [4]]


def test_a_piece_longer_than_a_row_is_an_error() -> None:
    with pytest.raises(ValueError, match="11 tokens does not fit a row of 10"):
        pack(np.array([3, 11]), 10)


@given(LENGTHS.filter(any), st.integers(4, 20))
def test_rows_hold_every_token_once_with_special_tokens_and_segments(lengths: list[int], row_length: int) -> None:
    rows = rows_of(store_of(lengths), row_length)
    found: list[int] = []
    real = 0
    for row in range(len(rows)):
        masked, segments, labels, place = rows[0, row]
        assert len(masked) == len(segments) == len(labels) <= row_length and place == (0, row)
        original = np.where(labels == IGNORED, masked, labels)
        assert (np.diff(segments) >= 0).all() and segments[0] == 1
        for number in range(1, segments.max() + 1):
            text = original[segments == number]
            assert (text[0], text[-1]) == (CLS, SEP) and (text[1:-1] >= FIRST).all() and len(text) > 2
            found += text[1:-1].tolist()
        real += len(masked)
    assert sorted(found) == list(range(FIRST, FIRST + sum(lengths)))
    assert rows.tokens == real


@given(LENGTHS.filter(any), st.integers(4, 20))
def test_a_collated_batch_pads_behind_the_row(lengths: list[int], row_length: int) -> None:
    rows = rows_of(store_of(lengths), row_length)
    items = [rows[0, row] for row in range(len(rows))]
    columns = rows.collate(items)
    batch = to_batch(**columns)
    assert batch.input_ids.shape == (len(rows), row_length)
    assert int(batch.mask.sum()) == rows.tokens
    for i, (masked, segments, labels, place) in enumerate(items):
        n = len(masked)
        assert columns["input_ids"][i].tolist() == [*masked, *[PAD] * (row_length - n)]
        assert columns["segments"][i].tolist() == [*segments, *[0] * (row_length - n)]
        assert columns["labels"][i].tolist() == [*labels, *[IGNORED] * (row_length - n)]
        assert columns["places"][i].tolist() == list(place)


def test_an_item_depends_on_seed_epoch_and_row_alone() -> None:
    store = store_of([17, 23, 9, 30, 4])
    rows, again, other = rows_of(store, 20), rows_of(store, 20), rows_of(store, 20, seed=1)
    [again[0, row] for row in range(len(again))]  # what was read before must not matter
    for row in range(len(rows)):
        for one, two in zip(rows[3, row], again[3, row], strict=True):
            np.testing.assert_array_equal(one, two)
    assert any(not np.array_equal(rows[3, row][0], rows[4, row][0]) for row in range(len(rows)))
    assert any(not np.array_equal(rows[3, row][0], other[3, row][0]) for row in range(len(rows)))


def test_with_variants_a_row_comes_again_with_the_same_masks() -> None:
    store = store_of([17, 23, 9, 30, 4])
    rows, anew = rows_of(store, 20, variants=3), rows_of(store, 20)
    for row in range(len(rows)):
        assert [rows[epoch, row][3] for epoch in range(5)] == [(epoch % 3, row) for epoch in range(5)]
        for epoch, same in ((0, 0), (2, 2), (3, 0), (5, 2)):
            for one, two in zip(rows[epoch, row], anew[same, row], strict=True):
                np.testing.assert_array_equal(one, two)


def test_the_sampler_gives_every_row_once_an_epoch_in_another_order() -> None:
    sampler, same, other = EpochSampler(50, 0), EpochSampler(50, 0), EpochSampler(50, 1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert [epoch for epoch, _ in second] == [1] * 50
    assert sorted(row for _, row in first) == sorted(row for _, row in second) == list(range(50))
    assert [row for _, row in first] != [row for _, row in second]
    assert first == list(same) != list(other)
    assert len(sampler) == 50


def test_a_store_is_built_once_and_a_half_written_one_anew(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("camembert")
    expected = [tokenizer(line, add_special_tokens=False).input_ids for line in SENTENCES]
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "ids.bin").write_bytes(b"left by a crash")
    store = TokenStore.build(SENTENCES, tokenizer, tmp_path / "store")
    assert len(store) == 10 and store.tokens == sum(map(len, expected))
    assert [store.ids[a:b].tolist() for a, b in zip(store.starts, store.starts[1:], strict=False)] == expected
    mapped = TokenStore.build(iter(()), tokenizer, tmp_path / "store")
    assert mapped.ids.tolist() == store.ids.tolist()

    def failing() -> object:
        yield SENTENCES[0]
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        TokenStore.build(failing(), tokenizer, tmp_path / "broken")  # type: ignore[arg-type]
    assert not (tmp_path / "broken" / "done.json").exists()
    empty = TokenStore.build([], tokenizer, tmp_path / "empty")
    assert (len(empty), empty.tokens) == (0, 0)
