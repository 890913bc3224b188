"""Raw text for pre-training and distillation: one paragraph or sentence a line, from files, folders or the hub."""

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from affinage.errors import DataError, InputError

SUFFIXES = (".txt", ".txt.gz", ".text", ".md")
MAX_LINE_BYTES = 16 * 2**20
"""A longer line is refused: it is a binary file or one without line breaks."""


def corpus_files(sources: Sequence[str | Path]) -> list[Path | str]:
    """The files behind the sources, folders expanded in sorted order; what is no path is kept as a hub name.

    A source given twice is read twice.

    Raises: InputError where nothing is given, a path does not exist, or a folder holds no text file.
    """
    if not sources:
        raise InputError("no corpus given; name text files, folders of them, or hub data sets")
    found: list[Path | str] = []
    for source in map(str, sources):
        try:
            found += _files_in(source)
        except OSError as error:  # no permission, a name that is too long
            raise InputError(f"corpus '{source}' cannot be read: {error.strerror or error}") from None
    return found


def _files_in(source: str) -> list[Path | str]:
    path = Path(source)
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
        if not inside:
            raise InputError(f"corpus folder '{path}' holds no {', '.join(SUFFIXES)} file")
        return list(inside)
    if path.is_file():
        if path.stat().st_size == 0:
            raise InputError(f"corpus file '{path}' is empty")
        return [path]
    if path.is_absolute() or source.startswith(".") or source.endswith((*SUFFIXES, "/")) or source.count("/") > 1:
        raise InputError(f"corpus '{path}' does not exist")
    return [source]


def corpus_lines(files: Sequence[Path | str]) -> Iterator[str]:
    """Every non-empty line, stripped. Raises: DataError with file and line for what is not UTF-8 text."""
    for file in files:
        yield from _hub_lines(file) if isinstance(file, str) else _file_lines(file)


def is_held_out(line: str, share: float) -> bool:
    """Whether a line belongs to the held-out part: decided by the line itself, so that every run agrees."""
    return zlib.crc32(line.encode()) < share * 2**32


def spread(lines: Iterable[str], share: float) -> Iterator[str]:
    """About `share` of the lines, chosen by each line itself and thus spread over the corpus."""
    return (line for line in lines if zlib.crc32(line.encode(), 1) <= share * 2**32)


def fingerprint(file: Path | str) -> str:
    """sha256 of a file's bytes, 64 hex digits; a hub name stands for itself. Raises: InputError if it is unreadable."""
    if isinstance(file, str):
        return file
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror or error}") from None


def _file_lines(path: Path) -> Iterator[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rb") as stream:
            while raw := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(raw) > MAX_LINE_BYTES:
                    raise DataError(
                        f"{path}:{number}: a line of more than {MAX_LINE_BYTES:,} bytes; break the text into lines"
                    )
                line = _decode(raw, path, number)
                if line:
                    yield line
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}:{number + 1}: cannot be read: {error}") from None


def _decode(raw: bytes, path: Path, number: int) -> str:
    try:
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{number}: not UTF-8 (byte {error.start + 1} of the line); convert the file first"
        ) from None
    if "\0" in line:
        raise DataError(f"{path}:{number}: holds a NUL character, so this is no text file")
    return line.strip()


def _hub_lines(name: str) -> Iterator[str]:
    """Lines of the `text` column of a hub data set, `name` or `name:configuration`, streamed."""
    from datasets import load_dataset

    repository, _, configuration = name.partition(":")
    try:
        rows = load_dataset(repository, configuration or None, split="train", streaming=True)
        for number, row in enumerate(rows):
            if "text" not in row:
                raise DataError(f"{name}#{number}: no column 'text'; there are: {', '.join(row)}")
            for line in str(row["text"]).splitlines():
                if stripped := line.strip():
                    yield stripped
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"corpus '{name}' is no file or folder here, and the hub did not give it: {first}") from error
