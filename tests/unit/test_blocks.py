"""Blocks: every line once an epoch, the same block again after a loss, little on disk and in memory however long."""

import itertools
import json
import shutil
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import affinage.data.blocks as module
from affinage.data.blocks import Blocks
from affinage.data.corpus import is_held_out
from affinage.data.masking import Masker
from affinage.data.notes import Note, Notes
from affinage.data.pieces import starts_word
from affinage.data.rows import PackedRows
from affinage.data.shards import Shard
from affinage.data.streamed import StreamedRows
from affinage.data.streams import Position, Stream
from affinage.data.tokens import TokenStore
from affinage.errors import DataError, InputError
from affinage.recipe import Masking
from tiny import SENTENCES, tiny_tokenizer

TOKENIZER = tiny_tokenizer("camembert")
SHARE = 0.1


@dataclass
class Written:
    """Lines that are all different; without an end where there is no `length`."""

    name: str
    length: int | None
    tag: str = ""
    read: int = 0
    opened: int = 0
    fails: bool = False

    def records(self, offset: int, number: int) -> Iterator[tuple[list[str], int]]:
        assert offset == number
        self.opened += 1
        while number != self.length:
            if self.fails:
                raise DataError(f"{self.where(number)}: gone")
            self.read += 1
            yield [f"{SENTENCES[number % 10]} {self.name} {number}"], number + 1
            number += 1

    def where(self, number: int) -> str:
        return f"{self.name}:{number + 1}"


def shards(*lengths: int) -> list[Shard]:
    return [Written(f"s{i}", length) for i, length in enumerate(lengths)]


def blocks_of(folder: Path, parts: list[Shard], *, wanted: int = 10**9, tokens: int = 600, **more: Any) -> Blocks:
    empty = TokenStore(np.zeros(0, np.int32), np.zeros(1, np.int64))
    masker = Masker(Masking(), 4, np.arange(len(TOKENIZER)) < 5, np.asarray(starts_word(TOKENIZER)))
    template = PackedRows(empty, masker, cls_id=0, sep_id=2, pad_id=1, row_length=64, seed=0)
    settings = {"block_tokens": tokens, "held_out": SHARE, "wanted": wanted, **more}
    return Blocks(Stream(parts, 0), TOKENIZER, template, folder=folder, **settings)


def texts_of(rows: PackedRows) -> list[str]:
    """The texts of a block, in the order of the stream."""
    ids, starts = rows.store.ids, rows.store.starts
    return [TOKENIZER.decode(ids[begin:end]) for begin, end in itertools.pairwise(starts)]


def normal(line: str) -> str:
    return str(TOKENIZER.decode(TOKENIZER(line, add_special_tokens=False).input_ids))


def same_rows(one: PackedRows, other: PackedRows) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a, b) for row in range(len(one)) for a, b in zip(one[2, row], other[2, row], strict=True)
    )


def folders(place: Path) -> list[str]:
    return sorted(path.name for path in place.glob("block-*"))


# --- what is in them -------------------------------------------------------------------------------------------------


def test_every_line_is_in_a_block_once_an_epoch_and_none_that_is_held_out(tmp_path: Path) -> None:
    parts = shards(30, 1, 0, 45)
    blocks = blocks_of(tmp_path, parts)
    lines = [line for part in parts for texts, _ in part.records(0, 0) for line in texts]
    expected = Counter(normal(line) for line in lines if not is_held_out(line, SHARE))
    size = expected.total()
    assert 0 < len(lines) - size < 20
    found: list[str] = []
    number = 0
    while len(found) < 3 * size:
        found += texts_of(blocks.rows(number))
        number += 1
    epochs = [found[i : i + size] for i in range(0, 3 * size, size)]
    assert [Counter(epoch) for epoch in epochs] == [expected] * 3
    assert epochs[0] != epochs[1]
    assert blocks.note(number - 1).end.epoch in (2, 3)
    assert number > 6


def test_a_block_has_about_the_tokens_asked_for_and_the_notes_are_true(tmp_path: Path) -> None:
    blocks = blocks_of(tmp_path, shards(200, 200))
    before = 0
    for number in range(12):
        note, rows = blocks.note(number), blocks.rows(number)
        assert 600 <= rows.store.tokens < 650
        assert (note.first_row, note.rows, note.tokens) == (before, len(rows), rows.tokens)
        before += note.rows
    rows = StreamedRows(blocks)
    first, second = blocks.note(0), blocks.note(1)
    assert rows.tokens_in(first.rows) == first.tokens
    assert rows.tokens_in(first.rows + second.rows // 2) == round(
        first.tokens + second.tokens * (second.rows // 2) / second.rows
    )


def test_a_line_longer_than_a_block_is_one(tmp_path: Path) -> None:
    blocks = blocks_of(tmp_path, shards(20), tokens=5)
    assert [len(blocks.rows(number).store) for number in range(5)] == [1] * 5


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no text to train on"):
        blocks_of(tmp_path / "a", shards(0, 0)).note(0)
    with pytest.raises(InputError, match="no text to train on"):
        blocks_of(tmp_path / "b", shards(5), held_out=1.0).note(0)


def test_every_block_has_masks_of_its_own(tmp_path: Path) -> None:
    data = StreamedRows(blocks_of(tmp_path, shards(90)))
    rows = data.blocks.rows(1)
    assert all(np.array_equal(one, two) for one, two in zip(data[1, 0], rows[1, 0], strict=True))
    assert not np.array_equal(data[1, 0][0], rows[0, 0][0])


# --- the order, and going on -----------------------------------------------------------------------------------------


def test_the_sampler_gives_every_row_once_and_stops(tmp_path: Path) -> None:
    blocks = blocks_of(tmp_path, shards(60, 60), wanted=57)
    sampler = StreamedRows(blocks).sampler(0)
    found = list(sampler)
    assert len(found) == len(sampler) == len(set(found)) == 57
    last = max(block for block, _ in found)
    assert last > 1
    for number in range(last):
        assert sorted(row for block, row in found if block == number) == list(range(blocks.note(number).rows))
    assert [block for block, _ in found] == sorted(block for block, _ in found)
    assert [row for _, row in found] != sorted(row for _, row in found)
    assert list(StreamedRows(blocks).sampler(0)) == found != list(StreamedRows(blocks).sampler(1))


def test_what_goes_on_reads_from_the_start_of_its_block(tmp_path: Path) -> None:
    """From the notes alone: every other file is gone."""
    whole = blocks_of(tmp_path / "whole", shards(400))
    for number in range(8):
        whole.note(number)
    wait_for(whole)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "blocks.jsonl").write_bytes((tmp_path / "whole" / "blocks.jsonl").read_bytes())
    parts = shards(400)
    cut = blocks_of(tmp_path / "cut", parts, ahead=False)
    order = [pair for pair, _ in zip(StreamedRows(cut).sampler(0), range(40), strict=False)]
    assert parts[0].read == 0  # type: ignore[attr-defined]
    assert order == [pair for pair, _ in zip(StreamedRows(whole).sampler(0), range(40), strict=False)]
    block = cut.rows(5)
    assert parts[0].read == cut.note(5).end.record - cut.note(4).end.record  # type: ignore[attr-defined]
    assert same_rows(block, blocks_of(tmp_path / "whole", shards(400)).rows(5))
    assert cut.rows(9).store.tokens >= 600  # and on, past what was noted


def wait_for(blocks: Blocks) -> None:
    if blocks._next is not None:
        blocks._next[1].exception()


@pytest.mark.parametrize("slow", [False, True])
def test_a_shard_is_opened_once_for_all_the_blocks_in_it(tmp_path: Path, slow: bool) -> None:
    """A packed one would be unpacked from its beginning each time. Training may be slower than what is prepared."""
    part = Written("s0", 400)
    data = StreamedRows(blocks_of(tmp_path, [part]))
    for number in range(8):
        assert data[number, 0]
        if slow and data.blocks._next is not None:
            data.blocks._next[1].result()
    assert data.blocks.note(8).end.record == part.read
    assert part.opened == 1


def test_a_lost_or_half_written_block_is_made_again_and_a_damaged_one_named(tmp_path: Path) -> None:
    def fresh() -> Blocks:
        return blocks_of(tmp_path, shards(400), ahead=False)

    blocks = fresh()
    expected = [blocks.rows(number) for number in range(3)]
    shutil.rmtree(tmp_path / "block-000000")
    (tmp_path / "block-000001" / "done.json").unlink()
    for number in (0, 1):
        assert same_rows(fresh().rows(number), expected[number])
    damaged = tmp_path / "block-000001" / "ids.bin"
    damaged.rename(damaged.with_name("kept"))
    damaged.write_bytes(damaged.with_name("kept").read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"block-000001/ids\.bin' is not what was written .*; delete the folder"):
        fresh().rows(1)
    # A run that died after the files were whole, and before the note was.
    lines = (tmp_path / "blocks.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "blocks.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:-9])
    assert same_rows(fresh().rows(2), expected[2])
    assert (tmp_path / "blocks.jsonl").read_bytes() == b"".join(lines)


def test_a_corpus_that_changed_is_noticed(tmp_path: Path) -> None:
    blocks_of(tmp_path, shards(400), ahead=False).note(2)
    for path in tmp_path.glob("block-*/done.json"):
        path.unlink()
    other = [Written("other", 400)]
    for _ in range(2):  # and again the next time
        with pytest.raises(DataError, match=r"^other:1: the text from here on is not what it was"):
            blocks_of(tmp_path, other, ahead=False).rows(0)


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_of_an_endless_stream_three_blocks_are_on_the_disk_and_as_many_in_memory(tmp_path: Path) -> None:
    blocks = blocks_of(tmp_path, [Written("endless", None)])
    data = StreamedRows(blocks)
    alive: weakref.WeakSet[PackedRows] = weakref.WeakSet()
    for number in range(30):
        assert data[number, 0]
        wait_for(blocks)
        alive.add(blocks.rows(number))
        assert len(alive) <= 3
        assert folders(tmp_path) == [f"block-{i:06d}" for i in range(max(number - 1, 0), number + 2)]
    assert {path.name.rstrip("0123456789") for path in tmp_path.iterdir()} <= {"block-", "blocks.jsonl", "lock-"}
    assert (tmp_path / "blocks.jsonl").stat().st_size < 31 * 250


def test_nothing_is_prepared_that_training_does_not_need(tmp_path: Path) -> None:
    """Else a thread would write into a folder that the end of the run deletes."""
    first = blocks_of(tmp_path / "a", shards(400)).note(0).rows
    for wanted, expected in ((first, ["block-000000"]), (first + 1, ["block-000000", "block-000001"])):
        blocks = blocks_of(tmp_path / str(wanted), shards(400), wanted=wanted)
        assert folders(tmp_path / str(wanted)) == []
        assert StreamedRows(blocks).store.tokens
        assert folders(tmp_path / str(wanted)) == ["block-000000"]  # before training, nothing ahead
        assert StreamedRows(blocks)[0, 0]
        wait_for(blocks)
        assert folders(tmp_path / str(wanted)) == expected


# --- threads and processes -------------------------------------------------------------------------------------------


def test_what_goes_wrong_ahead_is_raised_where_the_block_is_needed(tmp_path: Path) -> None:
    part = Written("s0", 400)
    blocks = blocks_of(tmp_path, [part])
    end = blocks.note(0).end.record
    part.fails = True
    assert StreamedRows(blocks)[0, 0]
    wait_for(blocks)
    with pytest.raises(DataError, match=f"^s0:{end + 1}: gone"):
        blocks.rows(1)
    part.fails = False
    assert texts_of(blocks.rows(1))


def test_two_that_share_a_folder_make_each_block_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    build = TokenStore.build.__func__  # type: ignore[attr-defined]

    def counted(cls: Any, lines: Any, tokenizer: Any, folder: Path, **more: Any) -> TokenStore:
        def watched() -> Iterator[str]:
            made.append(folder.name)
            yield from lines

        return build(cls, watched(), tokenizer, folder, **more)  # type: ignore[no-any-return]

    monkeypatch.setattr(module.TokenStore, "build", classmethod(counted))
    found: dict[int, list[list[str]]] = {}

    def walk(who: int) -> None:
        blocks = blocks_of(tmp_path, shards(300, 300), ahead=who == 0)
        for number in range(10):
            both.wait()  # as training steps do: neither is ever a block ahead of the other
            blocks.enter(number)
            found.setdefault(who, []).append(texts_of(blocks.rows(number)))
        wait_for(blocks)

    both = threading.Barrier(2)
    run_together([lambda: walk(0), lambda: walk(1)])
    assert found[0] == found[1]
    assert sorted(made) == [f"block-{number:06d}" for number in range(11)]


def run_together(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_notes_survive_a_torn_line_and_strangers(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    notes = Notes(path)
    assert (len(notes), notes.get(0)) == (0, None)
    one = Note(Position(0, 1, 2, 3, 4), first_row=0, rows=5, tokens=6, sha256="ab")
    notes.add(one)
    whole = path.read_bytes()
    for torn in (b"{", b'{"end": [0', whole[:-1], b"\0" * 40, b"[]\n"):
        path.write_bytes(whole + torn)
        again = Notes(path)
        assert (len(again), again.get(0), again.get(1)) == (1, one, None)
        again.add(one)
        assert path.read_bytes() == 2 * whole
    assert notes.get(1) == one  # what another process added
    assert json.loads(whole)["end"] == [0, 1, 2, 3, 4]
