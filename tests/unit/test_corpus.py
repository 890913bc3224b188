"""Raw text: every bad file is refused with its name and line, and what is held out never changes."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import affinage.data.shards as shards
from affinage.data.corpus import corpus_files, corpus_lines, fingerprint, in_order, is_held_out
from affinage.errors import DataError, InputError
from tiny import SENTENCES


def lines_of(*paths: Path) -> list[str]:
    return list(corpus_lines(corpus_files(list(paths))))


def file(folder: Path, content: bytes, name: str = "text.txt") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def test_lines_are_stripped_and_empty_ones_left_out(tmp_path: Path) -> None:
    text = "\ufeffPremière ligne \r\n\n  \t\nseconde\u00a0ligne\nsans fin de ligne"
    expected = ["Première ligne", "seconde\u00a0ligne", "sans fin de ligne"]
    assert lines_of(file(tmp_path, text.encode())) == expected
    assert lines_of(file(tmp_path, gzip.compress(text.encode()), "text.txt.gz")) == expected


def test_a_folder_is_its_text_files_in_sorted_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/2.txt", "a.txt", "c.md", "b/1.txt.gz", "ignored.json"):
        content = name.encode()
        file(tmp_path, gzip.compress(content) if name.endswith("gz") else content, name)
    assert lines_of(tmp_path) == ["a.txt", "b/1.txt.gz", "b/2.txt", "c.md"]
    assert lines_of(tmp_path / "a.txt", tmp_path / "a.txt") == ["a.txt", "a.txt"]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"bon\nmauvais \xe9t\xe9\n", "text.txt", "text.txt:2: not UTF-8 (byte 9 of the line)"),
        (b"\xff\xfea\x00", "text.txt", "text.txt:1: not UTF-8"),
        (b"bon\nbon\nnul \x00\n", "text.txt", "text.txt:3: holds a NUL character"),
        (gzip.compress("été\n".encode() * 4000, mtime=0)[:-20], "text.txt.gz", "text.txt.gz:"),
        (b"no gzip at all", "text.txt.gz", "text.txt.gz:1: cannot be read: Not a gzipped file"),
        (gzip.compress(b"bon\n" * 90_000, mtime=0)[:200] + b"garbage" * 20, "text.txt.gz", "text.txt.gz:"),
        (b"ok\n" + b"a" * 200 + b"\n", "text.txt", "text.txt:2: a line of more than 100 bytes"),
    ],
)
def test_a_bad_file_is_named_with_its_line(
    content: bytes, name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "MAX_LINE_BYTES", 100)
    with pytest.raises(DataError) as caught:
        lines_of(file(tmp_path, content, name))
    assert message in str(caught.value)
    assert str(caught.value).removeprefix(f"{tmp_path / name}:")[0].isdigit()


def test_a_line_of_just_the_longest_length_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_LINE_BYTES", 100)
    assert lines_of(file(tmp_path, b"a" * 99 + b"\n" + b"b" * 100)) == ["a" * 99, "b" * 100]


def test_a_name_that_no_disk_takes_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        corpus_files(["a" * 300])
    with pytest.raises(InputError, match="cannot be read: "):
        fingerprint(Path("/nowhere/a.txt"))


@pytest.mark.parametrize("name", ["missing.txt", "missing/", "./missing", "deeper/still/missing"])
def test_a_missing_path_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"missing' does not exist|missing\.txt' does not exist"):
        corpus_files([name])
    with pytest.raises(InputError, match="does not exist"):
        corpus_files([tmp_path / name])


def test_a_pattern_is_the_files_that_match_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").mkdir()
    for name in ("a-1.txt", "a-2.txt", "b/a-3.txt", "c.txt", "[d].txt"):
        file(tmp_path, name.encode(), name)
    assert lines_of(tmp_path / "a-*.txt") == lines_of(tmp_path / "a-[12].txt") == ["a-1.txt", "a-2.txt"]
    assert lines_of(tmp_path / "**" / "a-?.txt") == ["a-1.txt", "a-2.txt", "b/a-3.txt"]
    assert lines_of(tmp_path / "[d].txt") == ["[d].txt"]  # a file of that very name
    with pytest.raises(InputError, match=r"z\*\.txt' matches no file"):
        corpus_files([tmp_path / "z*.txt"])


def test_a_line_may_end_in_any_way(tmp_path: Path) -> None:
    assert lines_of(file(tmp_path, b"un\rdeux\r\ntrois\n\rquatre\r\r")) == ["un", "deux", "trois", "quatre"]


def test_nothing_an_empty_file_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no corpus given"):
        corpus_files([])
    with pytest.raises(InputError, match="is empty"):
        corpus_files([file(tmp_path, b"")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.txt"):
        corpus_files([tmp_path / "empty"])
    with pytest.raises(DataError, match="cannot be read"):
        list(corpus_lines([tmp_path / "vanished.txt"]))


def test_what_is_no_path_is_a_hub_name_and_offline_an_input_error() -> None:
    assert corpus_files(["wikimedia/wikipedia:20231101.fr"]) == ["wikimedia/wikipedia:20231101.fr"]
    with pytest.raises(InputError, match=r"corpus 'nobody/nothing' is no file or folder here, and the hub did not"):
        list(corpus_lines(["nobody/nothing"]))


def test_the_held_out_part_is_decided_by_the_line_alone() -> None:
    held = [sentence for sentence in SENTENCES if is_held_out(sentence, 0.5)]
    assert held == [SENTENCES[i] for i in HELD]  # written down: another version must hold out the same
    assert not any(is_held_out(sentence, 0.0) for sentence in SENTENCES)
    assert all(is_held_out(sentence, 1.0) for sentence in SENTENCES)


HELD = (2, 4, 9)


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_holds_out_what_a_smaller_one_does(line: str, one: float, two: float) -> None:
    assert is_held_out(line, min(one, two)) <= is_held_out(line, max(one, two))


def test_the_share_held_out_is_the_one_asked_for() -> None:
    held = sum(is_held_out(f"ligne {i}", 0.1) for i in range(20_000))
    assert abs(held - 2000) < 4 * (20_000 * 0.1 * 0.9) ** 0.5


def test_the_fingerprint_is_that_of_the_bytes(tmp_path: Path) -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert fingerprint(file(tmp_path, b"")) == empty
    assert fingerprint(file(tmp_path, b"a")) == fingerprint(file(tmp_path, b"a", "other.txt")) != empty
    assert fingerprint("hub/name") == "hub/name"


def test_the_order_of_sources_is_part_of_what_a_run_is() -> None:
    found = {"a": "1", "b": "2"}
    assert in_order(["a", "b"], found) != in_order(["b", "a"], found)
    assert in_order(["a"], {"a": "1"}) != in_order(["a", "a"], {"a": "1"})
    # A stream has one fingerprint, under a name that is no source's: other shards are another run.
    assert in_order(["hub"], {"shard-0 and 2 more": "1"}) != in_order(["hub"], {"shard-0 and 2 more": "2"})
