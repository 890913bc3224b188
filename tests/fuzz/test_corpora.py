"""The corpus reader: any bytes give stripped lines without NUL, or one error that names its line."""

import gzip
import tempfile
from pathlib import Path

import pyarrow as arrow
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from affinage.data.corpus import corpus_files, corpus_lines
from affinage.errors import DataError, InputError

PIECES = (
    *(
        b"abc",
        b"\n",
        b"\r",
        b"\r\n",
        b" ",
        b"\t",
        b"\xc2\xa0",
        b"\xe2\x80\xa8",
        b"\xc2\x85",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
    ),
    *(b"\xed\xa0\x80", b"\xc3", b"\0", b"\x0b", b"\x1c", "é😀שלום".encode(), b"\x1f\x8b", b"(\xb5/\xfd", b"PAR1"),
)
anything = st.binary(max_size=80) | st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join)
NAMES = ("a.txt", "a.md", "a.txt.gz", "a.txt.zst", "a.parquet")


def check(data: bytes, name: str, pack: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(packed(data, name) if pack else data)
        try:
            lines, fault = list(corpus_lines(corpus_files([path]))), None
        except InputError as error:
            lines, fault = [], error
    if fault is not None:
        problem = str(fault)
        assert isinstance(fault, DataError) or problem.endswith("is empty")
        assert str(path) in problem and len(problem) < 1000 and problem.isprintable(), problem
        return
    assert all(line and line == line.strip() and "\0" not in line for line in lines)
    if not pack and name in ("a.txt", "a.md"):
        text = data.decode("utf-8-sig").replace("\r", "\n")
        assert lines == [stripped for line in text.split("\n") if (stripped := line.strip())]


def packed(data: bytes, name: str) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(data)
    return arrow.compress(data, "zstd", asbytes=True) if name.endswith(".zst") else data


no_limit = settings(deadline=None, suppress_health_check=list(HealthCheck))


@settings(no_limit, max_examples=150)
@example(b"a\rb\r\nc\n\rd", "a.txt", False)
@example(b"\xef\xbb\xbf\xef\xbb\xbfa\n\xef\xbb\xbfb", "a.txt", False)
@example(b"\xe2\x80\xa8a\xe2\x80\xa8b\xe2\x80\xa8", "a.txt", False)
@example(b"", "a.txt.gz", True)
@example(b"\x1f\x8b", "a.txt.gz", False)
@given(anything, st.sampled_from(NAMES), st.booleans())
def test_any_bytes_are_lines_or_one_error(data: bytes, name: str, pack: bool) -> None:
    check(data, name, pack)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(no_limit, max_examples=5_000)
@given(anything, st.sampled_from(NAMES), st.booleans())
def test_many_bytes_are_lines_or_one_error(data: bytes, name: str, pack: bool) -> None:
    check(data, name, pack)
