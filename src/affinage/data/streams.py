"""A corpus too large to be kept: its lines in an order that seed and epoch decide, from any position on."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from affinage.data.corpus import is_held_out
from affinage.data.shards import Shard, steadily
from affinage.data.sources import fingerprint_of, open_shards
from affinage.errors import InputError
from affinage.recipe import Stage

_SAMPLED = 16
"""Shards that a sample is taken from."""


class Position(NamedTuple):
    """Where in a stream a line begins: small, exact, and enough to go on from."""

    epoch: int = 0
    shard: int = 0
    """its place in the order of the epoch"""
    offset: int = 0
    """where its record begins in the shard: a byte after decompression, or a row"""
    record: int = 0
    """records before that one in the shard"""
    line: int = 0
    """lines before it in the record"""


@dataclass(frozen=True)
class Stream:
    """Shards that are read again in another order each epoch."""

    shards: Sequence[Shard]
    seed: int

    def order(self, epoch: int) -> list[int]:
        """Which shard comes when."""
        found: list[int] = np.random.default_rng((self.seed, epoch)).permutation(len(self.shards)).tolist()
        return found

    def lines(self, start: Position) -> Iterator[tuple[str, Position]]:
        """Lines from `start` to the end of its epoch, each with the position behind it.

        Raises: DataError naming shard and row for what is no text, or cannot be read even after several attempts.
        """
        order = self.order(start.epoch)
        _, first, offset, number, skipped = start
        for place in range(first, len(order)):
            with closing(steadily(self.shards[order[place]], offset, number)) as records:
                for lines, behind in records:
                    for i, line in enumerate(lines[skipped:], start=skipped + 1):
                        rest = (offset, number, i) if i < len(lines) else (behind, number + 1, 0)
                        yield line, Position(start.epoch, place, *rest)
                    offset, number, skipped = behind, number + 1, 0
            offset = number = skipped = 0

    def where(self, position: Position) -> str:
        """Shard and row of a position, in words."""
        return self.shards[self.order(position.epoch)[position.shard]].where(position.record)

    def sample(self, size: int) -> Iterator[str]:
        """Lines of about `size` bytes of UTF-8, taken in equal parts from the beginnings of several shards."""
        left = float(size)
        several = min(_SAMPLED, len(self.shards))
        for place, shard in enumerate(self.order(0)):
            taken, wanted = 0, left / max(several - place, 1)
            with closing(steadily(self.shards[shard], 0, 0)) as records:
                for line in itertools.chain.from_iterable(lines for lines, _ in records):
                    yield line
                    taken += len(line.encode())
                    if taken >= wanted:
                        break
            left -= taken
            if left <= 0:
                return

    def fingerprints(self) -> dict[str, str]:
        """One entry for a report: which shards, and the sha256 of their names, sizes and checksums."""
        more = f" and {len(self.shards) - 1:,} more shards" if len(self.shards) > 1 else ""
        return {f"{self.shards[0].name}{more}": fingerprint_of(self.shards)}


class Reading(Iterator[str]):
    """A stream being read from `position` on, epoch after epoch, without the lines that are held out.

    It has no end. `position` is behind the last line taken; whoever takes more goes on from there.
    """

    def __init__(self, stream: Stream, position: Position, *, held_out: float) -> None:
        self.position = position
        self._lines = self._read(stream, held_out)

    def __next__(self) -> str:
        return next(self._lines)

    def _read(self, stream: Stream, held_out: float) -> Iterator[str]:
        while True:
            begin = self.position
            for line, behind in stream.lines(begin):
                if not is_held_out(line, held_out):
                    self.position = behind
                    yield line
            if self.position == begin == Position(begin.epoch):
                raise InputError("the corpus has no text to train on")
            self.position = Position(begin.epoch + 1)


def as_stream(files: Sequence[Path | str], stage: Stage) -> Stream | None:
    """The corpus as a stream; None where it is tokenised whole.

    URLs, hub data sets and Parquet stream by themselves, unless the recipe says `streaming: false`; local text where it
    says `streaming: true`.

    Raises: InputError where nobody said how long to train, or a source cannot be reached.
    """
    by_itself = any(isinstance(file, str) or file.suffix == ".parquet" for file in files)
    if not (by_itself if stage.streaming is None else stage.streaming):
        return None
    shards = open_shards(files)  # first, for what is neither a path nor on the hub is most likely a slip
    if stage.training.max_steps is None:
        raise InputError(
            "a streamed corpus has no known length: say how long to train with --max-steps N, or have it tokenised "
            "whole, where disk and memory suffice, with --set streaming=false"
        )
    return Stream(shards, stage.training.seed)
