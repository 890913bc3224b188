"""A sample of a corpus too big to be counted: lines from many places of it, and how much of it they are."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from affinage.data.shards import Records, TextShard, steadily
from affinage.data.sources import open_shards
from affinage.data.streams import Stream

WHOLE_BYTES = 32_000_000
"""Up to so much text is read whole."""
_PLACES = 64
_PACKED, _UNPACKED_BYTES = (".gz", ".zst"), 4
"""Bytes of text that a compressed byte is taken for, before one is read."""


@dataclass(frozen=True)
class Sample:
    """Lines, and which share of the corpus they are."""

    lines: list[str]
    share: float | None
    """in bytes on the disk; None where the size of the corpus is not known"""


def is_small(files: Sequence[Path | str]) -> bool:
    """Whether the whole corpus is read sooner than a sample is worth."""
    return all(isinstance(file, Path) and file.suffix != ".parquet" for file in files) and (
        sum(_size(file) * (_UNPACKED_BYTES if _packed(file) else 1) for file in map(Path, files)) <= WHOLE_BYTES
    )


def sample(files: Sequence[Path | str], *, budget: int, stream: Stream | None = None) -> Sample:
    """About `budget` bytes of a corpus.

    Of local text from places spread evenly over all of it (of a compressed file from its beginning); of anything else
    from the beginnings of several shards, and then the size of the corpus is not known.

    Raises: DataError with file and place for what is no text.
    """
    paths = [file for file in files if isinstance(file, Path) and file.suffix != ".parquet"]
    if stream is not None or len(paths) < len(files):
        return Sample(list((stream or Stream(open_shards(files), 0)).sample(budget)), None)
    total = sum(map(_size, paths))
    lines: list[str] = []
    taken = 0
    for path, begin, wanted in _places(paths, total, budget):
        found, size = _read(path, begin, wanted)
        lines += found
        taken += size
    return Sample(lines, min(1.0, taken / total) if taken else None)


def _places(paths: Sequence[Path], total: int, budget: int) -> Iterator[tuple[Path, int, int]]:
    """Files, the byte each is read from, and how many bytes: places at equal distances over the whole corpus."""
    packed: Counter[Path] = Counter()
    each, before = budget // _PLACES, 0
    places = iter([i * total // _PLACES for i in range(_PLACES)])
    place = next(places, None)
    for path in paths:
        size = _size(path)
        while place is not None and place < before + size:
            if _packed(path):
                packed[path] += each // _UNPACKED_BYTES
            else:
                yield path, place - before, min(each, total // _PLACES)
            place = next(places, None)
        before += size
    yield from ((path, 0, wanted) for path, wanted in packed.items())


def _read(path: Path, begin: int, wanted: int) -> tuple[list[str], int]:
    """The whole lines in about `wanted` bytes on the disk from `begin`, and the bytes these lines are."""
    with path.open("rb") as raw:
        start = begin
        if begin:
            raw.seek(begin - 1)
            piece = raw.readline(wanted)
            if not piece.endswith(b"\n"):
                return [], 0  # in the midst of a long line
            start = begin - 1 + len(piece)
        shard = TextShard(str(path), "", lambda: raw if _packed(path) else path.open("rb"))
        with closing(steadily(shard, start, 1 if start else 0, waits=())) as records:
            return _unpacked(records, raw, wanted) if _packed(path) else _plain(records, start, begin + wanted)


def _plain(records: Records, start: int, end: int) -> tuple[list[str], int]:
    """What begins before `end`."""
    found: list[str] = []
    place = start
    for lines, behind in records:
        if place >= end:
            break
        found += lines
        place = behind
    return found, place - start


def _unpacked(records: Records, raw: IO[bytes], wanted: int) -> tuple[list[str], int]:
    """Bytes are read ahead: what was read is what the lines before the next reading are made of."""
    found: list[str] = []
    size = 0
    for lines, _ in records:
        if size and raw.tell() != size and size >= wanted:
            return found, size
        size = raw.tell()
        found += lines
    return found, size


def _packed(path: Path) -> bool:
    return path.suffix in _PACKED


def _size(path: Path) -> int:
    return path.stat().st_size
