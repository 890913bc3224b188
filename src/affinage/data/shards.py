"""One shard of a corpus (text, Parquet or rows of the hub, here or in an object store), read from any place in it."""

import gzip
import io
import logging
import re
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Protocol, cast

from affinage.data.unfolding import ALWAYS, refuse_bomb, rows_at_once
from affinage.errors import AffinageError, DataError, legible

log = logging.getLogger(__name__)

TEXT = (".txt", ".text", ".md")
SUFFIXES = (*(f"{kind}{packed}" for kind in TEXT for packed in ("", ".gz", ".zst")), ".parquet")
COLUMN = "text"
"""The column that tables (Parquet, the hub) are read from."""
MAX_LINE_BYTES = 16 * 2**20
"""A longer line is refused: it is a binary file or one without line breaks."""
WAITS = (1.0, 5.0, 25.0)
"""Seconds to wait before each further attempt at a place of a stream that could not be read."""
_CHUNK = 2**20
_ROWS = 1_000
"""Rows of a table decoded at a time."""

Records = Generator[tuple[list[str], int], None, None]
"""The stripped, non-empty lines of each record (a line of text, a row of a table), and the offset behind it."""


class Shard(Protocol):
    """What can be read again from where an earlier reading stopped."""

    @property
    def name(self) -> str:
        """For messages and reports: without passwords."""
        ...

    @property
    def tag(self) -> str:
        """What tells this content from another, as far as that is known without reading it: size, checksum."""
        ...

    def records(self, offset: int, number: int) -> Records:
        """Records from `offset` on, which has `number` records before it.

        Raises: DataError for what is no text; whatever the storage raises where it cannot be read.
        """
        ...

    def where(self, number: int) -> str:
        """The record after `number` others, in words."""
        ...


@dataclass(frozen=True)
class TextShard:
    """One text a line, UTF-8, plain or compressed (.gz, .zst). Offsets are bytes after decompression."""

    name: str
    tag: str
    open: Callable[[], IO[bytes]]

    def records(self, offset: int, number: int) -> Records:
        with self.open() as raw, _decompressed(raw, self.name) as stream:
            _go_to(stream, offset)
            checked = 0
            while line := stream.readline(MAX_LINE_BYTES + 1):
                if len(line) > MAX_LINE_BYTES:
                    raise DataError(
                        f"{self.where(number)}: a line of more than {MAX_LINE_BYTES:,} bytes; break the text into lines"
                    )
                offset += len(line)
                if stream is not raw and offset > checked + ALWAYS:
                    refuse_bomb(self.where(number), packed=raw.tell(), unfolded=offset)
                    checked = offset
                yield _decode(line, self.where(number), first=number == 0), offset
                number += 1

    def where(self, number: int) -> str:
        return f"{self.name}:{number + 1}"


@dataclass(frozen=True)
class ParquetShard:
    """Rows of the column `text`. Offsets are rows."""

    name: str
    tag: str
    open: Callable[[], IO[bytes]]

    def records(self, offset: int, number: int) -> Records:
        from pyarrow.parquet import ParquetFile

        with (
            self.open() as stream,
            ParquetFile(stream, buffer_size=_CHUNK, pre_buffer=False, page_checksum_verification=True) as table,
        ):
            if COLUMN not in (columns := table.schema_arrow.names):
                raise DataError(no_column(self.where(offset), columns))
            first, rows = 0, min(_ROWS, rows_at_once(self.name, table))
            for group in range(table.num_row_groups):
                behind = first + table.metadata.row_group(group).num_rows
                if offset < behind:
                    yield from self._group(table, group, first, offset, rows)
                first = behind

    def where(self, number: int) -> str:
        return f"{self.name}#{number + 1}"

    def _group(self, table: Any, group: int, row: int, offset: int, rows: int) -> Records:
        """Rows of a row group that begins with `row`, from `offset` on; `rows` of them are unpacked at once."""
        for batch in table.iter_batches(rows, row_groups=[group], columns=[COLUMN], use_threads=False):
            values = batch.column(0)
            for i in range(max(offset - row, 0), len(values)):
                yield row_lines(values[i].as_py(), self.where(row + i)), row + i + 1
            row += len(values)


@dataclass(frozen=True)
class HubShard:
    """Rows of one shard of a hub data set, column `text`. Offsets are rows."""

    name: str
    tag: str
    rows: Any
    """a `datasets.IterableDataset`"""

    def records(self, offset: int, number: int) -> Records:
        for row, record in enumerate(self.rows.skip(offset) if offset else self.rows, start=offset):
            if COLUMN not in record:
                raise DataError(no_column(self.where(row), list(record)))
            yield row_lines(record[COLUMN], self.where(row)), row + 1

    def where(self, number: int) -> str:
        return f"{self.name}#{number + 1}"


def steadily(shard: Shard, offset: int = 0, number: int = 0, *, waits: Sequence[float] | None = None) -> Records:
    """The records of a shard, a place that cannot be read attempted again after each of `waits` (None: `WAITS`).

    Raises: DataError naming shard and row where that does not help, and at once for what is no text.
    """
    waits = WAITS if waits is None else waits
    left = iter(waits)
    while True:
        try:
            for lines, behind in shard.records(offset, number):
                yield lines, behind
                offset, number, left = behind, number + 1, iter(waits)
            return
        except AffinageError:
            raise
        except Exception as error:  # an object store's library raises what it likes: this is its rim
            where, reason = shard.where(number), shown(error) or type(error).__name__
            wait = next(left, None)
            if wait is None:
                if not waits:
                    raise DataError(f"{where}: cannot be read: {reason}") from error
                raise DataError(
                    f"{where}: cannot be read, even after {len(waits) + 1} attempts: {reason}; restore it and run "
                    "the same command again: training goes on from its last checkpoint"
                ) from error
            log.warning("%s: cannot be read: %s; another attempt in %g s", where, reason, wait)
            time.sleep(wait)


def shown(source: object) -> str:
    """A source, or an error that names one, without the passwords and signatures of URLs."""
    text = re.sub(r"(https?://[^\s?'\"]*)\?[^\s'\"]*", r"\1", str(source))
    return re.sub(r"://[^\s/@]*@", "://", text)


def row_lines(value: Any, where: str) -> list[str]:
    """The lines of a cell. Raises: DataError for what is neither text nor empty, or for a line that is too long."""
    if value is None:
        return []
    if not isinstance(value, str):
        raise DataError(f"{where}: column '{COLUMN}' holds {type(value).__name__}; expected text")
    lines = [stripped for line in value.splitlines() if (stripped := line.strip())]
    if len(value) > MAX_LINE_BYTES and max(map(len, lines), default=0) > MAX_LINE_BYTES:
        raise DataError(f"{where}: a line of more than {MAX_LINE_BYTES:,} characters; break the text into lines")
    return lines


def no_column(where: str, columns: list[str]) -> str:
    """What is said of a table without the column that is read."""
    there = ", ".join(legible(name, 60) for name in columns)
    return f"{where}: no column '{COLUMN}'; there are: {there:.300}"


def _decode(raw: bytes, where: str, *, first: bool) -> list[str]:
    """The stripped lines in what ends with LF: one, or several where some end with CR alone."""
    try:
        line = raw.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {error.start + 1} of the line); convert the file first") from None
    if "\0" in line:
        raise DataError(f"{where}: holds a NUL character, so this is no text file")
    return [stripped for part in line.split("\r") if (stripped := part.strip())]


def _decompressed(raw: IO[bytes], name: str) -> IO[bytes]:
    plain: Any = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw, _CHUNK)
    if name.endswith(".gz"):
        plain = gzip.GzipFile(fileobj=plain)
    if name.endswith(".zst"):
        import pyarrow

        packed = pyarrow.CompressedInputStream(pyarrow.PythonFile(plain, mode="r"), "zstd")
        plain = io.BufferedReader(packed, _CHUNK)
    return cast("IO[bytes]", plain)


def _go_to(stream: IO[bytes], offset: int) -> None:
    """Go to `offset`, by reading where the stream cannot seek (zstd, a server without ranges)."""
    if not offset:
        return
    try:
        stream.seek(offset)
    except ValueError:  # io.UnsupportedOperation among them
        while offset and (chunk := stream.read(min(offset, _CHUNK))):
            offset -= len(chunk)
