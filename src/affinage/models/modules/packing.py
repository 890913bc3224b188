"""Small whole numbers in as few bytes as they need: several to a byte, each row from a byte of its own."""

import torch
from torch import Tensor

TRITS = 5
"""values of three levels that a byte holds: 3^5 = 243"""


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of a row of `count` values of `bits` bits."""
    return -(-count * bits // 8)


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """(rows, n) values in [0, 2^bits) -> (rows, ⌈n · bits / 8⌉) uint8: a stream of bits, lowest first.

    Value i is bits i · bits … (i + 1) · bits - 1 of the row's stream, bit j of which is bit j mod 8 of byte j div 8; so
    of two 4-bit values the first is the low half of the byte.
    """
    if bits == 8:
        return codes.to(torch.uint8).contiguous()
    stream = _bits_of(codes.to(torch.uint8), bits)
    stream = torch.nn.functional.pad(stream, (0, -stream.shape[1] % 8))
    return _numbers_of(stream, 8)


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """(rows, ⌈count · bits / 8⌉) uint8 -> (rows, count) uint8: what `pack_bits` packed."""
    if bits == 8:
        return packed
    if 8 % bits == 0:
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
        codes: Tensor = ((packed[:, :, None] >> shifts) & (2**bits - 1)).flatten(1)[:, :count]
        return codes
    return _numbers_of(_bits_of(packed, 8)[:, : count * bits], bits)


def pack_trits(codes: Tensor) -> Tensor:
    """(rows, n) values in {0, 1, 2} -> (rows, ⌈n / 5⌉) uint8: Σ_i 3^i · code[5 · byte + i]; padded with 0."""
    padded = torch.nn.functional.pad(codes.to(torch.uint8), (0, -codes.shape[1] % TRITS))
    packed: Tensor = (padded.unflatten(1, (-1, TRITS)) * _powers(codes)).sum(2, dtype=torch.uint8)
    return packed


def unpack_trits(packed: Tensor, count: int) -> Tensor:
    """(rows, ⌈count / 5⌉) uint8 -> (rows, count) uint8 in {0, 1, 2}: what `pack_trits` packed."""
    digits = packed[:, :, None].div(_powers(packed), rounding_mode="floor") % 3
    return digits.flatten(1)[:, :count]


def _bits_of(values: Tensor, bits: int) -> Tensor:
    """(rows, n) -> (rows, n · bits) of 0 and 1."""
    return ((values[:, :, None] >> torch.arange(bits, dtype=torch.uint8, device=values.device)) & 1).flatten(1)


def _numbers_of(stream: Tensor, bits: int) -> Tensor:
    """(rows, n · bits) of 0 and 1 -> (rows, n)."""
    places = torch.arange(bits, dtype=torch.uint8, device=stream.device)
    packed: Tensor = (stream.unflatten(1, (-1, bits)) << places).sum(2, dtype=torch.uint8)
    return packed


def _powers(like: Tensor) -> Tensor:
    return torch.tensor([3**i for i in range(TRITS)], dtype=torch.uint8, device=like.device)
