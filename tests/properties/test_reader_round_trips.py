"""Readers: what was written is what is read, and rubbish is an error that names its place."""

import csv
import gzip
import json
import tempfile
from pathlib import Path

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from affinage.data.examples import read_examples
from affinage.data.readers import read_rows
from affinage.data.task import load_task
from affinage.errors import DataError

# Any character a file may hold: lone surrogates cannot be written, and NUL is refused.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40) | st.sampled_from(
    ['"', '""', "a,b", "a;b", "a\tb", "\n", "\r", "\r\n", "\u2028", "\x85", "\x1c", "\ufeff", " ", "'", "\\", "#", "😀"]
)
tables = st.lists(st.tuples(texts, texts), min_size=1, max_size=8)
COLUMNS = {"text": "text", "label": "label"}


def read(name: str, data: bytes) -> list[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        return [(row.values["text"], row.values["label"]) for row in read_rows(path, columns=COLUMNS)]


@given(tables, st.booleans(), st.sampled_from(["\n", "\r\n", "\r"]))
def test_jsonl_round_trip(table: list[tuple[str, str]], ascii_only: bool, newline: str) -> None:
    lines = [json.dumps({"text": t, "label": label}, ensure_ascii=ascii_only) for t, label in table]
    assert read("a.jsonl.gz", gzip.compress(newline.join(lines).encode())) == table


@given(tables, st.sampled_from([(".csv", ","), (".tsv", "\t"), (".csv", ";")]), st.sampled_from(["\n", "\r\n"]))
@example([("", ""), ("a", "0")], (".tsv", "\t"), "\r\n")
def test_csv_round_trip(table: list[tuple[str, str]], form: tuple[str, str], newline: str) -> None:
    suffix, delimiter = form
    # Part of a quoted cell that breaks its line may look like a row of the .tsv files that know no quotes.
    assume(suffix != ".tsv" or not any("\t" in cell and set("\r\n") & set(cell) for row in table for cell in row))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "b.csv"
        with path.open("w", encoding="utf-8", newline="") as handle:
            # Without quotes a lone \r would be a newline; csv.writer sees that only where the newline has one.
            quoting = csv.QUOTE_ALL if newline == "\n" else csv.QUOTE_MINIMAL
            writer = csv.writer(handle, delimiter=delimiter, lineterminator=newline, quoting=quoting)
            writer.writerow(["text", "label"])
            writer.writerows(table)
        data = path.read_bytes()
    assert read("a" + suffix, data) == table


words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=8)


@given(st.lists(st.lists(words.filter(lambda w: not w.startswith("#") and w != "-DOCSTART-"), min_size=1), min_size=1))
def test_conll_round_trip(sentences: list[list[str]]) -> None:
    text = "\n\n".join("\n".join(f"{word}\tO" for word in sentence) for sentence in sentences)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.conll"
        path.write_bytes(text.encode())
        found = [list(e.words) for e in read_examples(load_task("ner"), path)]
    sentences[0][0] = sentences[0][0].removeprefix("\ufeff")
    assert found == sentences


pieces = st.sampled_from(
    [
        b'{"text": "a", "label": 1}',
        b'{"data": [{"paragraphs": [{"qas": [3]}]}]}',
        b"text,label",
        b"text\tlabel",
        b"\\ud800",
        b"{",
        b"[",
        b'"',
        b"\n",
        b"\r",
        b",",
        b"\t",
        b"\xff",
        b"\0",
        b"\xc3",
        b"O",
        b"B-PER",
        b" ",
        b"#",
        b"1e999",
        b"PAR1",
    ]
)
SUFFIXES = [".jsonl", ".csv", ".tsv", ".conll", ".json", ".parquet"]
rubbish = st.binary(max_size=60) | st.lists(pieces, max_size=12).map(b"".join)


@settings(max_examples=300)
@given(rubbish, st.sampled_from(SUFFIXES), st.sampled_from(["", ".gz", "not gz"]))
@example(b"", ".parquet", "")
def test_rubbish_is_read_or_named(data: bytes, suffix: str, packing: str) -> None:
    task = load_task({".conll": "ner", ".json": "qa"}.get(suffix, "sentiment"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}{'.gz' if packing else ''}"
        path.write_bytes(gzip.compress(data) if packing == ".gz" else data)
        try:
            assert read_examples(task, path)
            problem = ""
        except DataError as error:
            problem = str(error)
    assert problem == "" or problem.removeprefix(str(path))[0] in ":#"
    assert len(problem) < 3000


@given(st.integers(0, 60), st.binary(min_size=1, max_size=4))
def test_a_damaged_gzip_is_named(at: int, noise: bytes) -> None:
    good = b'{"text": "a", "label": "1"}\n' * 20
    packed = bytearray(gzip.compress(good, mtime=0))
    at %= len(packed)
    packed[at : at + len(noise)] = noise
    try:
        read("a.jsonl.gz", bytes(packed))
        problem = "a.jsonl.gz:1: "
    except DataError as error:
        problem = str(error)
    assert "a.jsonl.gz:" in problem
