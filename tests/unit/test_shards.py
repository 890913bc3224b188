"""One shard of every kind: the same lines from any place on, bad rows named, storage that fails asked again."""

import gzip
import io
import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import affinage.data.shards as shards
from affinage.data.shards import HubShard, Shard, TextShard, shown, steadily
from affinage.data.sources import fingerprint_of, open_shards
from affinage.errors import DataError, InputError
from tiny import SENTENCES

datasets = pytest.importorskip("datasets")

ROWS = [*SENTENCES[:4], "", f"{SENTENCES[4]}\n\n {SENTENCES[5]} \n", None, *SENTENCES[6:]]
"""Rows of a table: one is empty, one missing, one has two lines."""
LINES = "".join(f"{sentence}\n" for sentence in (*SENTENCES[:4], "", *SENTENCES[4:]))
"""The same text as a file."""


def zstd(content: bytes) -> bytes:
    """In two frames, as a file that was appended to."""
    half = len(content) // 2
    packed = b""
    for part in (content[:half], content[half:]):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(part)
        packed += sink.getvalue().to_pybytes()
    return packed


def parquet(path: Path, rows: list[Any], **columns: list[Any]) -> Path:
    pq.write_table(pa.table({"number": list(range(len(rows))), "text": rows, **columns}), path, row_group_size=4)
    return path


class Unseekable(io.RawIOBase):
    """A download from a server without ranges."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._content.readinto(buffer)


def shard_of(kind: str, folder: Path) -> Shard:
    content = LINES.encode("utf-8-sig")
    packed: dict[str, Callable[[bytes], bytes]] = {"a.txt": bytes, "a.txt.gz": gzip.compress, "a.txt.zst": zstd}
    if kind in packed:
        (folder / kind).write_bytes(packed[kind](content))
        return open_shards([folder / kind])[0]
    if kind == "a.parquet":
        return open_shards([parquet(folder / kind, ROWS)])[0]
    if kind == "hub":
        rows = datasets.Dataset.from_dict({"text": ROWS}).to_iterable_dataset(num_shards=1)
        return HubShard("owner/name", "", rows)
    if kind == "memory":
        fsspec.filesystem("memory").pipe(f"{folder}/a.txt.gz", gzip.compress(content))
        return open_shards([f"memory:/{folder}/*.gz"])[0]
    return TextShard("download.txt", "", lambda: Unseekable(content))  # type: ignore[return-value, arg-type]


KINDS = ("a.txt", "a.txt.gz", "a.txt.zst", "a.parquet", "hub", "memory", "download")


@pytest.mark.parametrize("kind", KINDS)
def test_lines_are_the_same_from_any_record_on(kind: str, tmp_path: Path) -> None:
    shard = shard_of(kind, tmp_path)
    found = list(shard.records(0, 0))
    assert [line for lines, _ in found for line in lines] == list(SENTENCES)
    for number, (_, behind) in enumerate(found, start=1):
        assert list(shard.records(behind, number)) == found[number:]
    assert len({behind for _, behind in found}) == len(found) == len(ROWS)


# --- what is no text -------------------------------------------------------------------------------------------------


def refused(source: Path, match: str) -> None:
    (shard,) = open_shards([source])
    with pytest.raises(DataError) as caught:
        list(steadily(shard, waits=()))
    assert match in str(caught.value)


def test_a_bad_row_of_a_table_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"texte": ["un"], "id": [1]}), path)
    refused(path, f"{path}#1: no column 'text'; there are: texte, id")
    pq.write_table(pa.table({"text": [1, 2]}), path)
    refused(path, f"{path}#1: column 'text' holds int; expected text")
    monkeypatch.setattr(shards, "MAX_LINE_BYTES", 100)
    refused(parquet(path, ["un\n" * 90, *["deux"] * 5, "a" * 101]), f"{path}#7: a line of more than 100 characters")


def test_a_damaged_table_is_named_with_the_row_reached(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", ROWS)
    content = path.read_bytes()
    path.write_bytes(content[:-8] + b"no table")
    refused(path, f"{path}#1: cannot be read: ")
    # One letter of the second row group changed: nothing but the checksum of its page can tell.
    table = pa.table({"text": [f"ligne {i}" for i in range(8)]})
    pq.write_table(table, path, row_group_size=4, compression="none", use_dictionary=False, write_page_checksum=True)
    content = path.read_bytes()
    assert content.count(b"ligne 6") >= 1
    path.write_bytes(content.replace(b"ligne 6", b"lxgne 6"))
    refused(path, f"{path}#5: cannot be read: ")


def test_a_damaged_packed_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.zst"
    path.write_bytes(zstd(LINES.encode())[:-5])
    refused(path, "Truncated compressed stream")
    path.write_bytes(b"no zstd at all")
    refused(path, f"{path}:1: cannot be read: ")


# --- storage that fails ----------------------------------------------------------------------------------------------


@dataclass
class Flaky:
    """Records 0 to 9; the reading fails before each record of `failures` as often as it says there."""

    failures: dict[int, int]
    asked: list[int] = field(default_factory=list)
    name: str = "flaky"
    tag: str = ""

    def records(self, offset: int, number: int) -> Iterator[tuple[list[str], int]]:
        self.asked.append(number)
        assert offset == 10 * number
        for i in range(number, 10):
            if self.failures.get(i):
                self.failures[i] -= 1
                raise ConnectionError("reset by peer")
            yield [f"ligne {i}"], 10 * (i + 1)

    def where(self, number: int) -> str:
        return f"{self.name}:{number + 1}"


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were slept."""
    found: list[float] = []
    monkeypatch.setattr(shards.time, "sleep", found.append)
    return found


def test_a_place_that_fails_is_asked_again_and_no_line_comes_twice(
    waited: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    shard = Flaky({0: 1, 4: 3, 9: 2})
    with caplog.at_level(logging.WARNING):
        found = [line for lines, _ in steadily(shard) for line in lines]
    assert found == [f"ligne {i}" for i in range(10)]
    assert shard.asked == [0, 0, 4, 4, 4, 9, 9]
    assert waited == [1, 1, 5, 25, 1, 5]
    assert caplog.messages[1] == "flaky:5: cannot be read: reset by peer; another attempt in 1 s"


def test_after_the_last_attempt_shard_and_row_are_named(waited: list[float]) -> None:
    shard, found = Flaky({4: 4}), []
    with pytest.raises(DataError, match=r"^flaky:5: cannot be read, even after 4 attempts: reset by peer; restore it "):
        found += [line for lines, _ in steadily(shard) for line in lines]
    assert waited == [1, 5, 25]


def test_what_is_no_text_is_not_asked_again(waited: list[float], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"bon\n\xff\n")
    with pytest.raises(DataError, match=r"a\.txt:2: not UTF-8"):
        list(steadily(open_shards([tmp_path / "a.txt"])[0]))
    assert not waited


# --- which shards a name stands for ----------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """The URL of a folder in memory."""
    memory = fsspec.filesystem("memory")
    root = f"/{tmp_path.name}"
    for name in ("b.txt", "a.txt.gz", "deep/c.txt", "notes.json"):
        content = f"{name}\n".encode()
        memory.pipe(f"{root}/{name}", gzip.compress(content) if name.endswith("gz") else content)
    yield f"memory:/{root}"
    memory.rm(root, recursive=True)


def lines_of(*sources: str) -> list[str]:
    return list(itertools.chain.from_iterable(lines for s in open_shards(sources) for lines, _ in s.records(0, 0)))


def test_a_url_is_a_file_a_folder_or_a_pattern(store: str) -> None:
    assert lines_of(f"{store}/b.txt") == ["b.txt"]
    assert lines_of(store) == ["a.txt.gz", "b.txt", "deep/c.txt"]
    assert lines_of(f"{store}/*.txt*") == ["a.txt.gz", "b.txt"]
    assert lines_of(f"{store}/**/*.txt") == ["b.txt", "deep/c.txt"]
    assert lines_of(f"{store}/b.txt", f"{store}/b.txt") == ["b.txt", "b.txt"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("{store}/z.txt", "z.txt' does not exist"),
        ("{store}/z*.txt", "z*.txt' holds no .txt, "),
        ("nothing://a/b.txt", "cannot be reached: Protocol not known: nothing"),
    ],
)
def test_a_url_that_leads_nowhere(url: str, message: str, store: str) -> None:
    with pytest.raises(InputError) as caught:
        open_shards([url.format(store=store)])
    assert message in str(caught.value)


def test_a_missing_package_names_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(InputError, match=r"corpus 's3://bucket/a\.txt' needs .* install it with: pip install s3fs"):
        open_shards(["s3://bucket/a.txt"])


def test_passwords_are_not_shown() -> None:
    assert shown("https://me:secret@host/a.txt?signature=secret") == "https://host/a.txt"
    assert shown("hf://datasets/owner/name@main/a.parquet") == "hf://datasets/owner/name@main/a.parquet"
    assert shown(Path("a@b?.txt")) == "a@b?.txt"
    fault = "403, message='Forbidden', url='https://host/a.txt?X-Amz-Signature=secret&b=c'"
    assert shown(PermissionError(fault)) == "403, message='Forbidden', url='https://host/a.txt'"


def test_the_fingerprint_is_that_of_names_sizes_and_checksums() -> None:
    def of(*pairs: tuple[str, str]) -> str:
        return fingerprint_of([HubShard(name, tag, None) for name, tag in pairs])

    assert of(("a", "1"), ("b", "2")) == of(("a", "1"), ("b", "2"))
    assert len({of(("a", "1")), of(("a", "2")), of(("b", "1")), of(("a", "1"), ("b", "2")), of(("b", "2"))}) == 5


def test_a_hub_data_set_is_its_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = datasets.Dataset.from_dict({"text": SENTENCES, "id": range(10)})

    def load(name: str, config: str | None, *, split: str, streaming: bool) -> Any:
        assert (name, config, split, streaming) == ("owner/name", "fr", "train", True)
        return rows.to_iterable_dataset(num_shards=3)

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = open_shards(["owner/name:fr"])
    assert [shard.name for shard in found] == [f"owner/name:fr, shard {i} of 3" for i in (1, 2, 3)]
    assert [line for shard in found for lines, _ in shard.records(0, 0) for line in lines] == list(SENTENCES)
    monkeypatch.setattr(rows, "to_iterable_dataset", rows.select_columns(["id"]).to_iterable_dataset)
    with pytest.raises(InputError, match="owner/name:fr: no column 'text'; there are: id"):
        open_shards(["owner/name:fr"])


def test_a_file_object_is_closed(tmp_path: Path) -> None:
    """Also where the reading is given up in the middle."""
    (tmp_path / "a.txt").write_text(LINES, encoding="utf-8")
    opened: list[IO[bytes]] = []

    def opener() -> IO[bytes]:
        opened.append((tmp_path / "a.txt").open("rb"))
        return opened[-1]

    records = steadily(TextShard("a.txt", "", opener))
    next(records)
    records.close()
    assert opened[0].closed
