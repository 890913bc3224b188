"""Readers of labelled data: any bytes give examples, or one error in one line a row; never anything else."""

import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as arrow
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from affinage.data.examples import MAX_PROBLEMS, read_examples
from affinage.data.task import load_task
from affinage.errors import DataError

TASKS = {name: load_task(name) for name in ("sentiment", "ner", "nli", "qa")}
SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".conll", ".json", ".parquet")

PIECES = (
    *(b'{"text": "a", "label": 1}\n', b'{"premise": "a", "hypothesis": "b", "label": 0}\n', b'"data"', b'"paragraphs"'),
    *(b'"qas"', b'"context": "abc"', b'"question": "a"', b'"answers": [{"text": "a", "answer_start": 0}]', b'"id": 1'),
    *(b'"text"', b'"label"', b'"tokens": ["a"]', b'"tags": ["O"]', b"text,label\n", b"text\tlabel\n", b"a,1\n"),
    *(
        b"text;label\n",
        b"Paris B-LOC\n",
        b"# text\n",
        b"-DOCSTART- O\n",
        b"\n\n",
        b"a\tO\n",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
    ),
    *(b",", b'"', b"'", b"\\", b"\\ud800", b"\\u0000", b"1e999", b"-0", b"NaN", b"null", b"true", b"9" * 30, b"\n"),
    *(
        b"\r",
        b"\r\n",
        b"\xe2\x80\xa8",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\0",
        b"\x1f\x8b",
        b" ",
    ),
    *(b"\t", "é😀שלום".encode(), b"PAR1"),
)
texts = st.text(max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
answers = st.fixed_dictionaries({"text": texts | values, "answer_start": st.integers(-9, 9) | values})
FIELDS = {
    "text": texts | values,
    "label": st.integers(-3, 3) | texts | values,
    "premise": texts,
    "hypothesis": texts,
    "tokens": st.lists(texts, max_size=4) | values,
    "tags": st.lists(st.sampled_from(["O", "B-X", "I-X", "B-"]) | texts, max_size=4) | values,
    "id": texts | values,
    "question": texts,
    "context": texts,
    "answers": st.lists(answers, max_size=3) | answers | values,
}
records = st.fixed_dictionaries({}, optional=FIELDS)
paragraphs = st.fixed_dictionaries(
    {}, optional={"context": texts, "qas": st.lists(records | values, max_size=3) | values}
)
squad = st.fixed_dictionaries(
    {}, optional={"data": st.lists(st.fixed_dictionaries({"paragraphs": st.lists(paragraphs | values, max_size=2)}))}
)


@st.composite
def broken(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of which some are cut out, doubled or replaced."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 20)))
        data[start:end] = draw(st.sampled_from([b"", data[start:end] * 2, *PIECES]) | st.binary(max_size=4))
    return bytes(data)


def as_parquet(rows: list[dict[str, str]]) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


jsonl = st.lists(records | values, max_size=5).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())
whole_json = (squad | st.lists(records | values, max_size=4) | values).map(lambda value: json.dumps(value).encode())
tables = st.lists(st.fixed_dictionaries({"text": texts, "label": texts}), min_size=1, max_size=4)
anything = (
    st.binary(max_size=80)
    | st.lists(st.sampled_from(PIECES), max_size=15).map(b"".join)
    | broken(jsonl)
    | broken(whole_json)
)


def check(data: bytes, suffix: str, task: str, packing: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}{'.gz' if packing else ''}"
        path.write_bytes(gzip.compress(data) if packing == "packed" else data)
        try:
            assert read_examples(TASKS[task], path)
            return
        except DataError as error:
            problems = str(error).split("\n")
    assert len(problems) <= MAX_PROBLEMS + 1
    for problem in problems:
        assert problem.startswith((str(path), "… reading stopped")), problem
        assert problem.isprintable() and len(problem) < 1000, problem
    assert problems[0].removeprefix(str(path))[0] in ":#"


forms = (st.sampled_from(SUFFIXES), st.sampled_from(sorted(TASKS)), st.sampled_from(["", "", "packed", "not packed"]))
no_limit = settings(deadline=None, suppress_health_check=list(HealthCheck))


# What was found, by these tests or on the way to them.
FOUND = (
    (b'""\x01', ".tsv", "ner", ""),  # a control character in csv's message
    (b'text,label\n"a\x1b[2J"b,1\n', ".csv", "sentiment", ""),
    (b'"a\nb",label\nc,1\n', ".csv", "sentiment", ""),  # a column's name of two lines
    (b'{"text": "a", "text": "b", "label": 1}', ".jsonl", "sentiment", ""),  # the last one won
    (b'{"text": "a", "label": Infinity}', ".jsonl", "sentiment", ""),
    (b'{"text": "a", "label": ' + b"9" * 4301 + b"}", ".jsonl", "sentiment", ""),
    (b'{"text": ' + b"[" * 985 + b"]" * 985 + b', "label": 1}', ".jsonl", "sentiment", ""),  # repr of it nests, too
    (b"[" * 100_000, ".json", "qa", ""),
    (b'{"tokens": ["a"], "tags": ["' + b"B" * 5000 + b'"]}', ".jsonl", "ner", ""),  # all of it was in the message
    (b'{"data": [{"paragraphs": [{"qas": [{"id": "a\\nb"}]}]}]}', ".json", "qa", ""),
    (b"text,label\n" + b"a" * 300 + b"," + b"b" * 300, ".csv", "sentiment", ""),  # a label of 300 letters
    (b"," * 20_000, ".csv", "sentiment", ""),  # took a time that grew with its square
)


def with_examples(test: Callable[..., None]) -> Callable[..., None]:
    for found in FOUND:
        test = example(*found)(test)
    return test


@settings(no_limit, max_examples=150)
@given(anything, *forms)
@with_examples
def test_any_bytes_are_examples_or_one_error(data: bytes, suffix: str, task: str, packing: str) -> None:
    check(data, suffix, task, packing)


COLUMNS = (
    arrow.array([2**31 - 1], arrow.date32()),  # OverflowError
    arrow.array([2**62], arrow.time64("us")),
    arrow.array([2**62], arrow.duration("s")),
    arrow.array([2**62], arrow.timestamp("ms")),
    arrow.array([1], arrow.timestamp("ms", tz="Foo/Bar")),
    arrow.array([[("k", 1), ("k", 2)]], arrow.map_(arrow.string(), arrow.int64())),
    arrow.StructArray.from_arrays([arrow.array([1]), arrow.array([2])], names=["a", "a"]),
    arrow.array([b"\xff"], arrow.binary()),
)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: str(column.type))
def test_a_column_that_python_has_no_values_for(column: arrow.Array) -> None:
    stream = io.BytesIO()
    parquet.write_table(arrow.table({"text": ["a"], "label": column}), stream)
    check(stream.getvalue(), ".parquet", "sentiment", "")


def test_a_parquet_that_names_a_column_twice() -> None:
    stream = io.BytesIO()
    parquet.write_table(arrow.Table.from_arrays([arrow.array(["a"])] * 3, names=["text", "label", "text"]), stream)
    check(stream.getvalue(), ".parquet", "sentiment", "")


@settings(no_limit, max_examples=60)
@given(broken(tables.map(as_parquet)), st.sampled_from(sorted(TASKS)), st.sampled_from(["", "packed"]))
def test_any_damaged_parquet_is_examples_or_one_error(data: bytes, task: str, packing: str) -> None:
    check(data, ".parquet", task, packing)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(no_limit, max_examples=5_000)
@given(anything, *forms)
def test_many_bytes_are_examples_or_one_error(data: bytes, suffix: str, task: str, packing: str) -> None:
    check(data, suffix, task, packing)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(no_limit, max_examples=5_000)
@given(broken(tables.map(as_parquet)), st.sampled_from(sorted(TASKS)), st.sampled_from(["", "packed"]))
def test_many_damaged_parquets_are_examples_or_one_error(data: bytes, task: str, packing: str) -> None:
    check(data, ".parquet", task, packing)
