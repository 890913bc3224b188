"""Raw text for pre-training and distillation: one paragraph or sentence a line; files, folders, URLs or the hub."""

import glob
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from affinage.data.shards import SUFFIXES, shown, steadily
from affinage.data.sources import open_shards
from affinage.errors import InputError


def corpus_files(sources: Sequence[str | Path]) -> list[Path | str]:
    """The files behind the sources; URLs, and what is no path and thus a hub name, are kept as they are.

    Folders and patterns (`*`, `?`, `[…]`, `**`) are expanded in sorted order. A source given twice is read twice.

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
    if "://" in source:
        return [source]
    path = Path(source)
    if any(sign in source for sign in "*?[") and not path.exists():
        matching = sorted(p for name in glob.glob(source, recursive=True) if (p := Path(name)).is_file())
        if not matching:
            raise InputError(f"corpus '{source}' matches no file")
        return list(matching)
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
        if not inside:
            raise InputError(f"corpus folder '{path}' holds no {', '.join(SUFFIXES)} file")
        return list(inside)
    if path.is_file():
        if path.stat().st_size == 0:
            raise InputError(f"corpus file '{path}' is empty")
        return [path]
    if path.exists():
        raise InputError(f"corpus '{path}' is a pipe or a device; give files, for they are read more than once")
    if path.is_absolute() or source.startswith(".") or source.endswith((*SUFFIXES, "/")) or source.count("/") > 1:
        raise InputError(f"corpus '{path}' does not exist")
    return [source]


def corpus_lines(files: Sequence[Path | str]) -> Iterator[str]:
    """Every non-empty line, stripped. Raises: DataError with file and line for what is not UTF-8 text."""
    for shard in open_shards(files):
        for lines, _ in steadily(shard, waits=()):
            yield from lines


def is_held_out(line: str, share: float) -> bool:
    """Whether a line belongs to the held-out part: decided by the line itself, so that every run agrees."""
    return zlib.crc32(line.encode()) < share * 2**32


def spread(lines: Iterable[str], share: float) -> Iterator[str]:
    """About `share` of the lines, chosen by each line itself and thus spread over the corpus."""
    return (line for line in lines if zlib.crc32(line.encode(), 1) <= share * 2**32)


def fingerprint(file: Path | str) -> str:
    """sha256 of a file's bytes, 64 hex digits; a URL or hub name stands for itself.

    Raises: InputError if it is unreadable.
    """
    if isinstance(file, str):
        return shown(file)
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror or error}") from None


def in_order(files: Sequence[Path | str], found: Mapping[str, str]) -> dict[str, Any]:
    """What a run knows a corpus by: its fingerprints, and the sources as they are read, one named twice twice."""
    return {"fingerprints": dict(found), "read": [shown(file) for file in files]}


def fingerprints(files: Sequence[Path | str]) -> dict[str, str]:
    """Each file's name, without passwords -> its fingerprint."""
    return {shown(file): fingerprint(file) for file in files}
