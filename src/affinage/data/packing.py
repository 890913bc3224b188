"""Texts packed into rows of one length; each keeps its own special tokens and a segment number."""

import numpy as np
from numpy.typing import NDArray

from affinage.data.tokens import TokenStore


def cut(store: TokenStore, length: int) -> NDArray[np.int64]:
    """(P, 2) begin and end of the pieces of at most `length` tokens that the texts are cut into, in corpus order."""
    begins, ends = store.starts[:-1], store.starts[1:]
    counts = -((begins - ends) // length)
    first = np.cumsum(counts) - counts
    begin = np.repeat(begins, counts) + length * (np.arange(counts.sum()) - np.repeat(first, counts))
    return np.stack([begin, np.minimum(begin + length, np.repeat(ends, counts))], axis=1)


def pack(lengths: NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Rows of piece numbers whose lengths add up to at most `capacity`: best fit among the open rows, in order.

    Every piece is in exactly one row. Raises: ValueError where a piece is longer than a row.
    """
    if len(lengths) and int(lengths.max()) > capacity:
        raise ValueError(f"a piece of {int(lengths.max())} tokens does not fit a row of {capacity}")
    rows: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(capacity + 1)]  # room left -> rows
    rooms = 0  # bit r: there is a row with room r
    for number, needed in enumerate(lengths.tolist()):
        enough = rooms >> needed
        if not enough:
            row, room = len(rows), capacity
            rows.append([])
        else:
            room = needed + (enough & -enough).bit_length() - 1
            row = open_rows[room].pop()
            if not open_rows[room]:
                rooms ^= 1 << room
        rows[row].append(number)
        if room > needed:
            open_rows[room - needed].append(row)
            rooms |= 1 << (room - needed)
    return rows
