"""How a text file is read: line by line, plain or gzip, any newline, every fault a DataError that names file:line."""

import zlib
from collections.abc import Iterator
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import BinaryIO

from affinage.data.unfolding import Unfolded
from affinage.errors import DataError, InputError

MAX_LINE = 16 * 2**20
"""Characters a line may have: 16 Mi. What is longer is no data of ours, and memory stays bounded."""


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of `path`, decompressed where its name ends in `.gz` or `.GZ`; the caller closes it.

    Raises: InputError if it is missing, no regular file, or unreadable; when read, DataError for an archive bomb.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, a file is expected")
        if path.exists() and not path.is_file():  # opening a pipe or reading a device might never end
            raise InputError(f"{path}: is a pipe or a device, a file is expected")
        return BufferedReader(Unfolded(path), 2**17) if is_gzip(path) else path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path}: does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"{path}: cannot be read: {_reason(error)}") from None


def is_gzip(path: Path) -> bool:
    """As its name says."""
    return path.suffix.lower() == ".gz"


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and lines with their newline (LF, CR LF or CR, even mixed); a BOM is dropped.

    Raises: InputError if the file cannot be opened; DataError for text that is not UTF-8, a NUL, a line longer than
    `MAX_LINE`, a damaged or truncated gzip file.
    """
    # Undecodable bytes come through as surrogates, so that the fault is found on its own line and not at the end of
    # a decoder's block.
    with (
        open_bytes(path) as raw,
        TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="") as text,
    ):
        number = 1
        while line := _next_line(text, f"{path}:{number}"):
            yield number, line
            number += 1


def _next_line(text: TextIOWrapper, where: str) -> str:
    try:
        line = text.readline(MAX_LINE + 1)
    except EOFError:
        raise DataError(f"{where}: the gzip file is truncated here; fetch or write it again") from None
    except (OSError, zlib.error) as error:
        raise DataError(f"{where}: cannot be read: {_reason(error)}") from None
    if len(line) > MAX_LINE:
        raise DataError(f"{where}: the line has more than {MAX_LINE:,} characters; split it, or check the file's form")
    if "\0" in line:
        raise DataError(f"{where}: holds a NUL byte; expected UTF-8 text (is the file UTF-16, or binary?)")
    bad = undecodable(line)
    if bad is not None:
        raise DataError(f"{where}: is not UTF-8 (character {bad + 1} of the line); convert the file, e.g. with iconv")
    return line


def parts_of(line: str, size: int) -> list[str]:
    """A line in parts of at most `size` characters that join to it; cut before a space where there is one."""
    parts = []
    start = 0
    while len(line) - start > size:
        space = line.rfind(" ", start + 1, start + size)
        end = space if space > 0 else start + size
        parts.append(line[start:end])
        start = end
    return [*parts, line[start:]]


def undecodable(text: str) -> int | None:
    """Index of the first character that UTF-8 cannot write (a lone surrogate), or None."""
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)
