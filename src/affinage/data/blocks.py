"""A stream as blocks: each a token store in a bounded working folder, and what is remembered when it is gone."""

import copy
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout
from transformers import PreTrainedTokenizerFast

from affinage.data.checksums import read_note
from affinage.data.notes import Note, Notes
from affinage.data.rows import PackedRows
from affinage.data.streams import Position, Reading, Stream
from affinage.data.tokens import TokenStore
from affinage.errors import DataError

_HELD = 2
"""Blocks held open: a batch may begin in one and end in the next."""
_LOCKS = 8
"""Files that the blocks' locks are spread over; blocks so far apart are never made at the same time."""


class Blocks:
    """The blocks of a stream, made when they are asked for. On disk there are the current one and its neighbours.

    Several processes share the folder: whoever comes first makes a block, the others wait for it.
    """

    def __init__(
        self,
        stream: Stream,
        tokenizer: PreTrainedTokenizerFast,
        template: PackedRows,
        *,
        folder: Path,
        block_tokens: int,
        held_out: float,
        wanted: int,
        ahead: bool = True,
    ) -> None:
        """`template` says how rows are packed and masked; training takes `wanted` rows in all.

        `ahead`: this process prepares the next block while one trains, and clears away old ones.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.template, self.wanted = template, wanted
        self._stream, self._folder, self._tokens, self._share = stream, folder, block_tokens, held_out
        self._tokenizer = copy.deepcopy(tokenizer)  # for another thread than the one that saves it
        self._notes = Notes(folder / "blocks.jsonl")
        self._held: dict[int, PackedRows] = {}
        self._reading: Reading | None = None
        self._current = -1
        self._thread = ThreadPoolExecutor(1) if ahead else None
        self._next: tuple[int, Future[PackedRows]] | None = None

    def note(self, number: int) -> Note:
        """What block `number` is; it is made, and those before it, where that is not known yet."""
        for unknown in range(len(self._notes), number + 1):
            self.rows(unknown)
        found = self._notes.get(number)
        assert found is not None
        return found

    def rows(self, number: int) -> PackedRows:
        """The rows of block `number`.

        Raises: DataError where text cannot be read or, made again, is not what it was; InputError where there is none.
        """
        if number not in self._held:
            if number:
                self.note(number - 1)
            if self._next is not None and self._next[0] == number:
                (_, prepared), self._next = self._next, None
                found = prepared.result()
            else:
                found = self._prepare(number)
            self._held = dict([*self._held.items(), (number, found)][-_HELD:])
        return self._held[number]

    def enter(self, number: int) -> None:
        """Training takes its rows from block `number` now: clear up around it, and begin to prepare the next."""
        if self._thread is None or number == self._current:
            return
        self._current = number
        self._clear_around(number)
        self.rows(number)  # what was prepared is taken before the next is: two at once would share a reading
        note = self.note(number)
        if number + 1 not in self._held and note.first_row + note.rows < self.wanted:
            self._next = number + 1, self._thread.submit(self._prepare, number + 1)

    def _prepare(self, number: int) -> PackedRows:
        """Map block `number`, made first where its files are not there; the block before it is noted."""
        folder = self._folder / f"block-{number:06d}"
        before = self._notes.get(number - 1) if number else None
        start = Position() if before is None else before.end
        with self._lock(number):
            known = self._notes.get(number)
            if known is None:  # files that a run left before it could note them
                shutil.rmtree(folder, ignore_errors=True)
            text, self._reading = self._reading, None
            if text is None or text.position != start:
                text = Reading(self._stream, start, held_out=self._share)
            rows = replace(self.template, store=TokenStore.build(text, self._tokenizer, folder, limit=self._tokens))
            self._reading = text  # the next block goes on where this one ends, without opening the shard again
            if text.position == start:  # it was there
                return rows
            found = Note(
                end=text.position,
                first_row=0 if before is None else before.first_row + before.rows,
                rows=len(rows),
                tokens=rows.tokens,
                sha256=(read_note(folder / "done.json") or {})["files"]["ids.bin"]["sha256"],
            )
            if known is None:
                self._notes.add(found)
            elif found != known:
                shutil.rmtree(folder)
                raise DataError(
                    f"{self._stream.where(start)}: the text from here on is not what it was when this run first read "
                    "it; restore the corpus, or delete the unfinished run and begin anew"
                )
        return rows

    def _clear_around(self, number: int) -> None:
        """Delete the blocks that are neither `number` nor beside it, unless another process is at one of them."""
        for path in self._folder.glob("block-*"):
            other = int(path.name.rpartition("-")[2])
            if abs(other - number) > 1:
                try:
                    with self._lock(other, timeout=0):
                        (path / "done.json").unlink(missing_ok=True)  # half deleted is not damaged
                        shutil.rmtree(path, ignore_errors=True)
                except Timeout:
                    pass

    def _lock(self, number: int, *, timeout: float = -1) -> FileLock:
        return FileLock(self._folder / f"lock-{number % _LOCKS}", timeout=timeout)
