"""What is remembered of the blocks of a stream, in a file that only grows."""

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from affinage.data.streams import Position


@dataclass(frozen=True)
class Note:
    """Enough to make a block again where it is gone, and to see that it is the same."""

    end: Position
    """where the next block begins"""
    first_row: int
    """rows in the blocks before it"""
    rows: int
    tokens: int
    """real tokens, special tokens included"""
    sha256: str
    """of its token ids, 64 hex digits"""


class Notes:
    """The notes of all blocks, in order, one JSON line each. One process adds at a time; all may read.

    What was whole stays; a line that a crash tore is dropped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[Note] = []
        self._size = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            self._read()
            return len(self._found)

    def get(self, number: int) -> Note | None:
        """Note `number`, None where it is not there yet."""
        with self._lock:
            if number >= len(self._found):
                self._read()
            return self._found[number] if number < len(self._found) else None

    def add(self, note: Note) -> None:
        """Write a note behind the whole ones, and let it reach the disk."""
        with self._lock:
            self._read()
            with self._path.open("ab") as stream:
                stream.truncate(self._size)
                stream.write(json.dumps(asdict(note)).encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
            self._read()

    def _read(self) -> None:
        """Take up what was added since the last reading."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as stream:
            stream.seek(self._size)
            for line in stream:
                try:
                    noted = json.loads(line)
                    found = Note(**{**noted, "end": Position(*noted["end"])})
                except (ValueError, TypeError, KeyError):
                    return
                if not line.endswith(b"\n"):
                    return
                self._found.append(found)
                self._size += len(line)
