"""Readers: every format gives the same rows, every fault is one error that names its place."""

import csv
import gzip
import json
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from affinage.data import lines
from affinage.data.readers import Row, find_parts, read_rows
from affinage.errors import DataError, InputError

TEXTS = ["Un film « épatant ».", 'dit-il, "oui"\tet\xa0non', "deux\nlignes", "séparateur \u2028 rare 😀"]
COLUMNS = {"text": "text", "label": "label"}


def rows(path: Path, columns: dict[str, str] | None = None) -> list[Row]:
    return list(read_rows(path, columns=columns or COLUMNS))


def write(path: Path) -> Path:
    """The same four rows in the format that the suffix names."""
    records = [{"text": text, "label": str(i)} for i, text in enumerate(TEXTS)]
    suffix = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    plain = path.with_name("plain" + suffix)
    if suffix == ".parquet":
        parquet.write_table(arrow.Table.from_pylist(records), plain)
    elif suffix == ".json":
        plain.write_text(json.dumps(records), encoding="utf-8")
    elif suffix == ".jsonl":
        plain.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    else:
        with plain.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, ["text", "label"], delimiter="\t" if suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(records)
    data = plain.read_bytes()
    plain.unlink()
    path.write_bytes(gzip.compress(data) if path.suffix.lower() == ".gz" else data)
    return path


@pytest.mark.parametrize("packed", ["", ".gz", ".GZ"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet", ".json"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str, packed: str) -> None:
    found = rows(write(tmp_path / f"data{suffix}{packed}"))
    assert [r.values for r in found] == [{"text": t, "label": str(i)} for i, t in enumerate(TEXTS)]


def test_places_are_lines_even_after_a_cell_of_two_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "data.csv")
    assert [r.where for r in rows(path)] == [f"{path}:{n}" for n in (2, 3, 4, 6)]
    path = write(tmp_path / "data.jsonl")
    assert [r.where for r in rows(path)] == [f"{path}:{n}" for n in (1, 2, 3, 4)]
    path = write(tmp_path / "data.parquet")
    assert [r.where for r in rows(path)] == [f"{path}#{n}" for n in (1, 2, 3, 4)]


def test_semicolons_of_a_french_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes('\ufefftext;label\r\n"a;b, c";1\r\n'.encode())
    assert rows(path)[0].values == {"text": "a;b, c", "label": "1"}


def test_mixed_newlines_a_bom_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text":"a","label":1}\r\n\n{"text":"b","label":0}\r{"text":"c","label":0}')
    found = [(r.values["text"], r.where) for r in rows(path)]
    assert found == [("a", f"{path}:1"), ("b", f"{path}:3"), ("c", f"{path}:4")]


def test_conll(tmp_path: Path) -> None:
    path = tmp_path / "data.conll"
    path.write_text(
        "-DOCSTART- -X- O O\n\n# text = Paris\nParis NN B-LOC B-LOC\n# NN O O\nrit VB O O\n\n\n10\xa0000 CD O B-MISC",
        encoding="utf-8",
    )
    found = rows(path, {"tokens": "tokens", "tags": "tags"})
    assert found[0] == Row({"tokens": ["Paris", "#", "rit"], "tags": ["B-LOC", "O", "O"]}, f"{path}:4")
    assert found[1] == Row({"tokens": ["10\xa0000"], "tags": ["B-MISC"]}, f"{path}:9")


def test_squad(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    answer = {"text": "Paris", "answer_start": 0}
    paragraph = {"context": "Paris.", "qas": [{"id": "q1", "question": "Où ?", "answers": [answer]}]}
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": [paragraph]}]}))
    columns = {name: name for name in ("id", "question", "context", "answers")}
    expected = {"id": "q1", "question": "Où ?", "context": "Paris.", "answers": [answer]}
    assert rows(path, columns) == [Row(expected, f"{path}#q1")]


def test_columns_are_renamed_and_a_missing_one_lists_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"review": "bien", "label": 1}\n')
    assert rows(path, {"text": "review", "label": "label"})[0].values == {"text": "bien", "label": 1}
    with pytest.raises(DataError, match=r":1: no column 'text'; columns there: review, label.*--column text=review"):
        rows(path)


GOOD = b'{"text": "bien", "label": 1}\n'


@pytest.mark.parametrize(
    ("name", "data", "line", "words"),
    [
        ("a.jsonl", GOOD + b"[1, 2]\n", 2, "expected a JSON object"),
        ("a.jsonl", GOOD + b'{"text": "bi\n', 2, "not valid JSON"),
        ("a.jsonl", GOOD + b'{"text":\n', 2, "not valid JSON"),
        ("a.jsonl", GOOD + b'{"text": ' + b"9" * 5000 + b"}\n", 2, "not JSON that can be read"),
        ("a.jsonl", GOOD + b"[" * 200_000 + b"\n", 2, "not JSON that can be read"),
        ("a.jsonl", GOOD + b"\xff\n", 2, "not UTF-8"),
        ("a.jsonl", GOOD + b'{"text": "caf\xe9"}\n', 2, "not UTF-8"),
        ("a.jsonl", GOOD + b"\0\0\n", 2, "NUL"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), 1, "NUL"),
        ("a.jsonl", b"", 1, "is empty"),
        ("a.jsonl", b"\n \n", 1, "is empty"),
        ("a.csv", b"", 1, "is empty"),
        ("a.csv", b"text,label\n", 1, "is empty"),
        ("a.csv", b"text,label\nbien,1\nmal\n", 3, "1 cells, the header has 2"),
        ("a.csv", b"text,label\nbien,1,2\n", 2, "3 cells, the header has 2"),
        ("a.csv", b"text,text\nbien,1\n", 1, "a column twice"),
        ("a.csv", b'text,label\nbien,1\n"mal,1\nfin,0\n', 3, "unexpected end of data"),
        ("a.tsv", b"text\tlabel\nbien 1\n", 2, "1 cells"),
        ("a.conll", b"Paris B-LOC\nrit\n", 2, "expected 2 columns"),
        ("a.conll", b"Paris\n", 1, "a word and its tag"),
        ("a.conll", b"# rien\n\n", 1, "is empty"),
        ("a.json", b"", 1, "is empty"),
        ("a.json", b'{"version": 2}', 1, "expected a list under 'data'"),
        ("a.json", b"3", 1, "expected a JSON object"),
        ("a.json", GOOD + GOOD, 2, "name the file .jsonl"),
        ("a.jsonl.gz", gzip.compress(GOOD * 3, mtime=0)[:-9], 4, "truncated"),
        ("a.jsonl.gz", GOOD, 1, "gzip"),
    ],
)  # fmt: skip
def test_each_fault_names_file_and_line(tmp_path: Path, name: str, data: bytes, line: int, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        rows(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert words in str(caught.value)


def test_a_fault_does_not_hide_the_rows_before_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b"\xff")
    reading = read_rows(path, columns=COLUMNS)
    assert next(reading).values["text"] == "bien"
    with pytest.raises(DataError):
        next(reading)


@pytest.mark.parametrize("data", [b"PAR1 not really PAR1", b"x", b"\0" * 100])
def test_what_is_not_parquet(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet#1: is not readable Parquet"):
        rows(path)


def test_an_empty_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"text": arrow.array([], arrow.string())}), path)
    with pytest.raises(DataError, match="is empty"):
        rows(path)


def test_a_line_without_end_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 100)
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b" " * 101)
    with pytest.raises(DataError, match=r"a\.jsonl:2: the line has more than 100 characters"):
        rows(path)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        rows(tmp_path)
    with pytest.raises(InputError, match=r"nothing\.jsonl: does not exist"):
        rows(tmp_path / "nothing.jsonl")
    with pytest.raises(InputError, match="does not exist"):
        list(read_rows("a\0b.jsonl", columns=COLUMNS))
    (tmp_path / "a.docx").touch()
    with pytest.raises(InputError, match=r"suffix '\.docx' names no known format; known: \.jsonl"):
        rows(tmp_path / "a.docx")


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "a.jsonl"
    path.touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"a\.jsonl: cannot be read: Permission denied"):
        rows(path)


def test_parts_of_a_folder(tmp_path: Path) -> None:
    for name in ("train.jsonl.gz", "dev.csv", "test.parquet", "notes.txt", "training-log.csv"):
        (tmp_path / name).touch()
    expected = {"train": "train.jsonl.gz", "valid": "dev.csv", "test": "test.parquet"}
    assert find_parts(tmp_path) == {part: str(tmp_path / name) for part, name in expected.items()}
    (tmp_path / "valid.jsonl").touch()
    with pytest.raises(InputError, match=r"several files for its valid part: dev\.csv, valid\.jsonl"):
        find_parts(tmp_path)


@pytest.mark.parametrize("name", ["val", "eval", "Validation", "dev_matched", "validation-00000-of-00001"])
def test_other_names_of_a_part(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    for file in ("train.tsv", f"{name}.tsv", "dev_mismatched.tsv", "notes.txt"):
        (tmp_path / file).touch()
    assert find_parts(tmp_path) == {"train": str(tmp_path / "train.tsv"), "valid": str(tmp_path / f"{name}.tsv")}
    assert "left alone" in caplog.text and "dev_mismatched.tsv" in caplog.text and "notes.txt" not in caplog.text


def test_a_quote_in_a_tab_separated_file_is_a_character(tmp_path: Path) -> None:
    """As in GLUE's own files; what a spreadsheet quoted from end to end is read as CSV."""
    path = tmp_path / "data.tsv"
    lines = ['text\tlabel', '"He said no\t1', '"Quoted" start\t0', 'the end"\t1', '"say ""oui"""\t0',
             '"two\nlines\tand a tab"\t1',
             '0\t"last\ncell"', '"\t""', "",
             'x\t"open']  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = [(r.values["text"], r.values["label"], int(r.where.rpartition(":")[2])) for r in rows(path)]
    assert found == [('"He said no', "1", 2), ('"Quoted" start', "0", 3), ('the end"', "1", 4), ('say "oui"', "0", 5),
                     ("two\nlines\tand a tab", "1", 6), ("0", "last\ncell", 8), ('"', "", 10),
                     ("x", '"open', 12)]  # fmt: skip


def test_a_tab_separated_file_called_csv(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("text\tlabel\nbien\t1\n")
    with pytest.raises(DataError, match=r"data\.csv:1: the header has tabs .* \.tsv"):
        rows(path)


def test_spaces_around_a_column_s_name_are_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("text, label\nbien,1\n")
    assert rows(path)[0].values == {"text": "bien", "label": "1"}


def test_a_hashtag_is_a_word(tmp_path: Path) -> None:
    path = tmp_path / "data.conll"
    path.write_text("#fromage O\nParis B-LOC\n\n# a comment\n# O\n1 O\n", encoding="utf-8")
    found = rows(path, {"tokens": "tokens", "tags": "tags"})
    assert [r.values["tokens"] for r in found] == [["#fromage", "Paris"], ["#", "1"]]


def test_parts_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected train\.\*.*found nothing"):
        find_parts(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        find_parts(tmp_path / "nowhere")
    path = tmp_path / "rows.csv"
    path.touch()
    assert find_parts(path) == {"all": str(path)}
