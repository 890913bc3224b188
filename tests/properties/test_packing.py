"""What is packed comes out again, whatever it is; what is quantized is as near as its step says, and stays there."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from affinage.models.modules.codebook import codebook_matrix
from affinage.models.modules.groups import group_codes, group_matrix, group_scale
from affinage.models.modules.int8 import input_range, int8_scale, to_int8
from affinage.models.modules.packing import pack_bits, pack_trits, packed_bytes, unpack_bits, unpack_trits
from affinage.models.modules.signs import binary, binary_matrix, ternary, ternary_by_threshold, ternary_matrix

SIDE = st.integers(1, 40)
few = settings(max_examples=40, deadline=None)


@st.composite
def matrices(draw: Any) -> Tensor:
    """(rows, cols) numbers of any size, some of them 0, some rows all 0."""
    rows, cols, random = draw(SIDE), draw(SIDE), np.random.default_rng(draw(st.integers(0, 10**6)))
    values = random.normal(size=(rows, cols)) * 10.0 ** draw(st.integers(-2, 3)) + draw(st.sampled_from([0, -1, 3]))
    values *= random.random((rows, cols)) < draw(st.sampled_from([0.3, 1.0]))
    values[random.random(rows) < 0.1] = 0
    return torch.tensor(values, dtype=torch.float32)


@st.composite
def codes_of(draw: Any, levels: int) -> Tensor:
    """(rows, cols) uint8 below `levels`."""
    shape = (draw(SIDE), draw(SIDE))
    return torch.from_numpy(np.random.default_rng(draw(st.integers(0, 10**6))).integers(0, levels, shape, np.uint8))


MATRICES = matrices()


@few
@given(data=st.data(), bits=st.integers(1, 8))
def test_packed_bits_come_out_again(data: st.DataObject, bits: int) -> None:
    codes = data.draw(codes_of(2**bits))
    packed = pack_bits(codes, bits)
    assert packed.shape == (codes.shape[0], packed_bytes(codes.shape[1], bits))
    assert packed.dtype == torch.uint8
    assert torch.equal(unpack_bits(packed, bits, codes.shape[1]), codes)


@few
@given(codes=codes_of(3))
def test_packed_trits_come_out_again(codes: Tensor) -> None:
    packed = pack_trits(codes)
    assert packed.shape == (codes.shape[0], -(-codes.shape[1] // 5))
    assert torch.equal(unpack_trits(packed, codes.shape[1]), codes)


def test_the_bits_of_a_row_are_one_number_lowest_first() -> None:
    codes = [5, 0, 7, 1, 6, 3, 2]  # of three bits
    number = sum(code << 3 * i for i, code in enumerate(codes))
    assert pack_bits(torch.tensor([codes]), 3)[0].tolist() == list(number.to_bytes(3, "little"))
    assert pack_trits(torch.tensor([[2, 1, 0, 0, 2, 1]]))[0].tolist() == [2 + 3 + 2 * 81, 1]


@few
@given(weight=MATRICES, per_row=st.booleans(), bits=st.sampled_from([7, 8]))
def test_int8_is_within_half_a_step_and_stays(weight: Tensor, per_row: bool, bits: int) -> None:
    scale = int8_scale(weight, per_row=per_row, bits=bits)
    codes = to_int8(weight, scale)
    dense = codes.float() * scale[:, None]
    assert int(codes.abs().max()) <= 2 ** (bits - 1) - 1
    assert bool(((weight - dense).abs() <= scale[:, None] * 0.50001).all())
    assert torch.equal(to_int8(dense, scale), codes)


@few
@given(weight=MATRICES, bits=st.integers(2, 8), group=st.sampled_from([16, 32, 64]))
def test_groups_are_within_half_a_step_and_stay(weight: Tensor, bits: int, group: int) -> None:
    made = group_matrix(weight, bits, group)
    dense = made.read()
    steps = made.scale.float().repeat_interleave(made.group, 1)[:, : weight.shape[1]]
    assert bool(((weight - dense).abs() <= steps * 0.5001).all())
    scale, zero = group_scale(weight, bits)
    codes = group_codes(weight, scale, zero, bits)
    again = (codes - zero[:, None]) * scale.float()[:, None]
    assert torch.equal(group_codes(again, scale, zero, bits), codes)


@few
@given(values=MATRICES)
def test_activations_are_within_half_a_step_and_zero_stays_zero(values: Tensor) -> None:
    scale, zero = input_range(values.amin(), values.amax())
    dense = ((values / scale).round() + zero).clamp(0, 255).sub(zero) * scale
    assert bool(((values - dense).abs() <= scale * 0.5001).all())
    assert 0 <= float(zero) <= 255 and float(zero) == int(zero)
    assert bool((dense[values == 0] == 0).all())


@few
@given(weight=MATRICES)
@pytest.mark.parametrize("rounded", [ternary, ternary_by_threshold, binary])
def test_signs_and_scales_come_out_again(rounded: Any, weight: Tensor) -> None:
    codes, scale = rounded(weight)
    made = (binary_matrix if rounded is binary else ternary_matrix)(codes, scale)
    dense = made.read().detach()
    assert torch.equal(dense, codes * scale[:, None])
    pick = torch.tensor([weight.shape[0] - 1, 0])
    assert torch.equal(made.read(pick).detach(), dense[pick])


@few
@given(weight=MATRICES)
@pytest.mark.parametrize("rounded", [ternary, binary])
def test_signs_stay_what_they_are(rounded: Any, weight: Tensor) -> None:
    codes, scale = rounded(weight)
    dense = codes * scale[:, None]
    again, same = rounded(dense)
    torch.testing.assert_close(again * same[:, None], dense, rtol=1e-6, atol=0)


@few
@given(data=st.data(), entries=st.sampled_from([2, 5, 16, 37, 256]), width=st.integers(1, 4), one_book=st.booleans())
def test_codebook_entries_come_out_again(data: st.DataObject, entries: int, width: int, one_book: bool) -> None:
    codes = data.draw(codes_of(entries))
    books = 1 if one_book else codes.shape[1]
    book = torch.arange(books * entries * width, dtype=torch.float32).view(books, entries, width)
    made = codebook_matrix(codes, book)
    rows = [[book[0 if one_book else j, code] for j, code in enumerate(row)] for row in codes.tolist()]
    expected = torch.stack([torch.cat(row) for row in rows])
    assert torch.equal(made.read().detach(), expected)
    assert torch.equal(made.read(torch.tensor([0, 0])).detach(), expected[[0, 0]])
