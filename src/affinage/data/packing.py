"""Texts packed into rows of one length; each keeps its own special tokens and a segment number."""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from affinage.data.tokens import TokenStore


def cut(store: TokenStore, length: int) -> NDArray[np.int64]:
    """(P, 2) begin and end of the pieces of at most `length` tokens that the texts are cut into, in corpus order."""
    pieces = []
    for begin, end in zip(store.starts[:-1], store.starts[1:], strict=True):
        pieces += [(i, min(i + length, end)) for i in range(begin, end, length)]
    return np.asarray(pieces, dtype=np.int64).reshape(-1, 2)


def pack(lengths: NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Rows of piece numbers whose lengths add up to at most `capacity`: best fit among the open rows, in order.

    Every piece is in exactly one row. Raises: ValueError where a piece is longer than a row.
    """
    if len(lengths) and int(lengths.max()) > capacity:
        raise ValueError(f"a piece of {int(lengths.max())} tokens does not fit a row of {capacity}")
    rows: list[list[int]] = []
    open_rows: dict[int, list[int]] = defaultdict(list)  # room left -> rows
    for number, needed in enumerate(lengths.tolist()):
        room = next((r for r in range(needed, capacity + 1) if open_rows.get(r)), None)
        if room is None:
            row, room = len(rows), capacity
            rows.append([])
        else:
            row = open_rows[room].pop()
        rows[row].append(number)
        if room - needed:
            open_rows[room - needed].append(row)
    return rows
