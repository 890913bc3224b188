"""A corpus whose documents can be told apart: for losses on what follows."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from affinage.data.corpus import is_held_out
from affinage.data.shards import TextShard, steadily
from affinage.data.sources import open_shards

PASSAGE = 32
"""Lines of a document that are held out together, or not."""


def document_lines(files: Sequence[Path | str], *, share: float, held_out: bool) -> Iterator[str]:
    """The lines of what is held out (about `share` of the passages of `PASSAGE` lines), or of what is not.

    An empty line stands wherever the next line does not follow the one before in a document. Documents end at an empty
    line, at the end of a file, and in tables at the end of a row.

    Raises: DataError with file and line for what is not UTF-8 text.
    """
    passage: list[str] = []
    follows = False  # whether the passage before, of this document, was taken
    for line in _lines(files):
        if line:
            passage.append(line)
        if passage and (not line or len(passage) == PASSAGE):
            taken = is_held_out(passage[0], share) == held_out
            if follows and not taken:
                yield ""
            if taken:
                yield from passage
            follows, passage = taken, []
        if not line and follows:
            yield ""
            follows = False


def _lines(files: Sequence[Path | str]) -> Iterator[str]:
    """Every line, with an empty one behind each document."""
    for shard in open_shards(files):
        is_text = isinstance(shard, TextShard)
        for lines, _ in steadily(shard, waits=()):
            yield from lines
            if not is_text or not lines:
                yield ""
        yield ""
