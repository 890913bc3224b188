"""A stream goes on from any position, in an order of its own each epoch, and says when it needs a number of steps."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import affinage.data.shards as shards
from affinage.data.corpus import corpus_files, is_held_out
from affinage.data.streams import Position, Reading, Stream, as_stream
from affinage.errors import DataError, InputError
from affinage.recipe import Stage, Training


@dataclass(frozen=True)
class Listed:
    """A shard of rows, each of which holds some lines. Offsets are seven times the row."""

    name: str
    rows: tuple[int, ...]
    tag: str = ""

    def records(self, offset: int, number: int) -> Iterator[tuple[list[str], int]]:
        assert offset == 7 * number
        for row in range(number, len(self.rows)):
            yield [f"{self.name}.{row}.{i}" for i in range(self.rows[row])], 7 * (row + 1)

    def where(self, number: int) -> str:
        return f"{self.name}#{number + 1}"


SHARDS = st.lists(st.lists(st.integers(0, 3), max_size=4), max_size=5)


def stream_of(rows: list[list[int]], seed: int = 0) -> Stream:
    return Stream([Listed(str(i), tuple(counts)) for i, counts in enumerate(rows)], seed)


@given(SHARDS, st.integers(0, 3), st.integers(0, 3))
def test_a_position_goes_on_where_the_line_before_it_ended(rows: list[list[int]], seed: int, epoch: int) -> None:
    stream = stream_of(rows, seed)
    found = list(stream.lines(Position(epoch)))
    assert sorted(line for line, _ in found) == sorted(
        f"{shard}.{row}.{i}" for shard, counts in enumerate(rows) for row, n in enumerate(counts) for i in range(n)
    )
    for number, (_, behind) in enumerate(found, start=1):
        assert behind.epoch == epoch
        assert list(stream.lines(behind)) == found[number:]


@given(st.integers(0, 3), st.integers(0, 5))
def test_every_epoch_reads_every_shard_once(seed: int, epoch: int) -> None:
    stream = stream_of([[1]] * 20, seed)
    assert sorted(stream.order(epoch)) == list(range(20))
    assert stream.order(epoch) != stream.order(epoch + 1)
    assert stream.order(epoch) != stream_of([[1]] * 20, seed + 1).order(epoch)
    assert stream.order(epoch) == stream_of([[1]] * 20, seed).order(epoch)


def test_a_position_is_said_in_words() -> None:
    stream = stream_of([[1, 2], [1], [3]])
    _, behind = list(stream.lines(Position()))[-1]
    last = stream.order(0)[-1]
    assert stream.where(behind) == f"{last}#{len(stream.shards[last].rows) + 1}"  # type: ignore[attr-defined]


def test_a_shard_that_vanishes_stops_the_run_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "WAITS", (0.0, 0.0))
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("un\ndeux\n", encoding="utf-8")
    stage = Stage(name="x", streaming=True, training=Training(max_steps=1))
    stream = as_stream(corpus_files([tmp_path]), stage)
    assert stream is not None
    lines = stream.lines(Position())
    first, second = next(lines), next(lines)
    gone = tmp_path / {0: "b.txt", 1: "a.txt"}[stream.order(0)[0]]
    gone.unlink()
    with pytest.raises(DataError, match=rf"{gone.name}:1: cannot be read, even after 3 attempts: .*No such file"):
        next(lines)
    assert (first[0], second[0]) == ("un", "deux")


def test_a_sample_is_spread_over_the_shards() -> None:
    few = list(stream_of([[3] * 100] * 4).sample(400))
    assert 400 <= sum(map(len, few)) < 410
    assert {line[0] for line in few} == set("0123")
    many = list(stream_of([[3] * 100] * 40).sample(1_600))
    assert len({line.split(".")[0] for line in many}) == 16
    short = list(stream_of([[1]] * 40).sample(10_000))
    assert len(short) == len(set(short)) == 40


@given(SHARDS, st.integers(0, 3), st.integers(0, 20))
def test_a_reading_goes_on_for_ever_and_can_be_taken_up_anywhere(rows: list[list[int]], seed: int, taken: int) -> None:
    stream = stream_of(rows, seed)
    epochs = [line for epoch in range(3) for line, _ in stream.lines(Position(epoch))]
    expected = [line for line in epochs if not is_held_out(line, 0.3)]
    reading = Reading(stream, Position(), held_out=0.3)
    if not expected:
        with pytest.raises(InputError, match="no text to train on"):
            next(iter(reading))
        return
    taken = min(taken, len(expected))
    assert list(itertools.islice(reading, taken)) == expected[:taken]
    again = Reading(stream, reading.position, held_out=0.3)
    rest = list(itertools.islice(again, len(expected) - taken))
    assert list(itertools.islice(reading, len(rest))) == rest == expected[taken:]


# --- when a corpus is streamed ---------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.parquet"):
        Path(name).write_bytes(b"not read")
    fsspec.filesystem("memory").pipe("/there/c.txt", b"text")
    return tmp_path


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("sources", "streaming", "shards"),
    [
        (["a.txt"], None, None),
        (["a.txt"], True, 1),
        (["b.parquet"], None, 1),
        (["b.parquet"], False, None),
        (["memory://there/c.txt"], None, 1),
        (["memory://there/c.txt"], False, None),
        (["a.txt", "memory://there"], None, 2),
        (["."], None, 2),
    ],
)
def test_what_is_streamed(sources: list[str], streaming: bool | None, shards: int | None) -> None:
    stage = Stage(name="x", streaming=streaming, training=Training(max_steps=1, seed=3))
    stream = as_stream(corpus_files(sources), stage)
    assert (None if stream is None else len(stream.shards)) == shards
    assert stream is None or stream.seed == 3


@pytest.mark.usefixtures("place")
def test_a_stream_needs_a_number_of_steps() -> None:
    with pytest.raises(InputError, match=r"no known length: .* --max-steps N, .* --set streaming=false"):
        as_stream(corpus_files(["b.parquet"]), Stage(name="x"))


def test_one_entry_stands_for_all_shards() -> None:
    one, three = stream_of([[1]]).fingerprints(), stream_of([[1]] * 3).fingerprints()
    assert list(one) == ["0"]
    assert list(three) == ["0 and 2 more shards"]
    assert all(len(value) == 64 for value in (*one.values(), *three.values()))
