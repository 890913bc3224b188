"""A sample of a corpus: how much of it, from where, and what it estimates."""

import gzip
from pathlib import Path

import pytest

from affinage.data import sample as module
from affinage.data.sample import is_small, sample
from affinage.data.streams import Stream
from affinage.errors import DataError


def words(lines: list[str]) -> int:
    return sum(len(line.split()) for line in lines)


def write(path: Path, *, lines: int, length: int, name: str = "mot") -> list[str]:
    """Lines of about `length` words, no two the same."""
    texts = [" ".join(f"{name}{i}" for _ in range(length + i % 3)) for i in range(lines)]
    data = ("\n".join(texts) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return texts


def test_places_are_spread_over_all_files(tmp_path: Path) -> None:
    """The files differ in how many words a byte holds: a sample of the first alone would be far off."""
    first = write(tmp_path / "a.txt", lines=4_000, length=5, name="anticonstitutionnellement")
    second = write(tmp_path / "b.txt", lines=9_000, length=30, name="x")
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    found = sample(files, budget=200_000)
    assert found.share is not None
    assert found.share == pytest.approx(200_000 / sum(f.stat().st_size for f in files), rel=0.1)
    assert words(found.lines) / found.share == pytest.approx(words(first + second), rel=0.1)
    assert set(found.lines) <= {*first, *second}, "whole lines"
    assert len(set(found.lines)) == len(found.lines), "none twice"


def test_of_a_compressed_file_the_bytes_on_the_disk_are_counted(tmp_path: Path) -> None:
    texts = write(tmp_path / "a.txt.gz", lines=60_000, length=6)
    found = sample([tmp_path / "a.txt.gz"], budget=400_000)
    assert found.share is not None
    assert found.share < 0.8
    assert found.lines == texts[: len(found.lines)]
    assert words(found.lines) / found.share == pytest.approx(words(texts), rel=0.15)


def test_a_corpus_smaller_than_the_sample_is_taken_whole(tmp_path: Path) -> None:
    texts = write(tmp_path / "a.txt.gz", lines=100, length=6)
    found = sample([tmp_path / "a.txt.gz"], budget=10_000_000)
    assert (found.lines, found.share) == (texts, 1.0)


def test_what_is_asked_for_beyond_the_corpus_comes_once(tmp_path: Path) -> None:
    texts = write(tmp_path / "a.txt", lines=20_000, length=6)
    found = sample([tmp_path / "a.txt"], budget=10_000_000)
    assert len(set(found.lines)) == len(found.lines)
    assert found.share is not None
    assert len(found.lines) / found.share == pytest.approx(len(texts), rel=0.01)


def test_a_place_in_a_long_line_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("court\n" * 500 + "é" * 100_000 + "\n" + "court\n" * 50_000, encoding="utf-8")
    found = sample([tmp_path / "a.txt"], budget=64_000)
    assert set(found.lines) == {"court"}


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\n" * 100_000)
    with pytest.raises(DataError, match="not UTF-8"):
        sample([tmp_path / "a.txt"], budget=64_000)


def test_a_stream_has_no_known_size(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", lines=500, length=6)
    from affinage.data.sources import open_shards

    stream = Stream(open_shards([tmp_path / "a.txt"]), 0)
    found = sample([tmp_path / "a.txt"], budget=1_000, stream=stream)
    assert found.share is None
    assert 0 < len(found.lines) < 100


def test_small_is_what_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.txt", lines=100, length=6)
    assert is_small([tmp_path / "a.txt"])
    assert not is_small(["some/data-set"])
    assert not is_small([tmp_path / "a.parquet"])
    monkeypatch.setattr(module, "WHOLE_BYTES", 100)
    assert not is_small([tmp_path / "a.txt"])
