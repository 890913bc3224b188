"""What an archive may unfold to: text packs to a third, hardly to a tenth, an archive bomb to a thousandth."""

import gzip
from io import RawIOBase
from pathlib import Path
from typing import Any

from affinage.errors import DataError

MAX_RATIO = 50
"""Times its size that an archive may unfold to, beyond `ALWAYS` bytes."""
ALWAYS = 16 * 2**20
_AT_ONCE = 2**28
"""Bytes of a Parquet column unpacked at once, where its values are alike."""


def refuse_bomb(where: str, *, packed: int, unfolded: int) -> None:
    """Raises: DataError where `packed` bytes have become too many."""
    if unfolded > max(ALWAYS, MAX_RATIO * packed):
        raise DataError(
            f"{where}: unfolds to more than {MAX_RATIO} times its size, as an archive bomb does; if that is meant, "
            "unpack it first"
        )


class Unfolded(RawIOBase):
    """What a .gz holds, read once from beginning to end."""

    def __init__(self, path: Path) -> None:
        self._path, self._size, self._stream = path, path.stat().st_size, gzip.GzipFile(path, "rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._stream.read1(len(buffer))  # not more at once: what comes before a fault is still read
        buffer[: len(found)] = found
        refuse_bomb(str(self._path), packed=self._size, unfolded=self._stream.tell())
        return len(found)

    def close(self) -> None:
        self._stream.close()
        super().close()


def rows_at_once(where: str, table: Any) -> int:
    """Rows of a `pyarrow.parquet.ParquetFile` to unpack at once, so that memory stays bounded.

    Raises: DataError for an archive bomb.
    """
    largest = 1
    for number in range(table.metadata.num_row_groups):
        group = table.metadata.row_group(number)
        for column in map(group.column, range(group.num_columns)):
            packed, unfolded = column.total_compressed_size, column.total_uncompressed_size
            refuse_bomb(f"{where}: column '{column.path_in_schema[:60]}'", packed=packed, unfolded=unfolded)
            largest = max(largest, unfolded)
    return min(1024, max(16, _AT_ONCE // largest))
