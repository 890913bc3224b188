"""How rows of unlike lengths become one array, and which rows share one."""

from collections.abc import Iterator, Sequence

import numpy as np

from affinage.data.encoding import Ints, Row


def padded(rows: Sequence[Ints], length: int, filler: int) -> Ints:
    """(B, length) int64, filled up on the right."""
    out = np.full((len(rows), length), filler, np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def round_length(rows: Sequence[Row], *, most: int) -> int:
    """Tokens of the longest row, rounded up to a multiple of 8, but not above `most`.

    Every new shape costs the kernels that oneDNN compiles for it, which is more than eight tokens do.
    """
    return max(longest := _longest(rows), min(-(-longest // 8) * 8, most))


def _longest(rows: Sequence[Row]) -> int:
    return max(len(row.input_ids) for row in rows)


def row_inputs(rows: Sequence[Row], *, pad_id: int, with_types: bool, length: int | None = None) -> dict[str, Ints]:
    """`input_ids`, `attention_mask` and, if `with_types`, `token_type_ids`: (B, T), T the longest row's or `length`."""
    length = _longest(rows) if length is None else length
    arrays = {
        "input_ids": padded([row.input_ids for row in rows], length, pad_id),
        "attention_mask": padded([np.ones(len(row.input_ids), np.int64) for row in rows], length, 0),
    }
    if with_types:
        arrays["token_type_ids"] = padded([row.type_ids for row in rows], length, 0)
    return arrays


def batches_by_length(rows: Sequence[Row], size: int) -> Iterator[list[int]]:
    """Indices of up to `size` rows of like length at a time, longest first: what does not fit is found out at once."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].input_ids))
    yield from (order[i : i + size] for i in range(0, len(order), size))
