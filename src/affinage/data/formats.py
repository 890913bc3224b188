"""How each file format becomes records: path -> (where, {column: value}), streamed where the format allows it."""

import csv
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from affinage.data.lines import MAX_LINE, open_bytes, read_lines
from affinage.errors import DataError, MissingExtra

Record = tuple[str, dict[str, Any]]
"""Where it stands ("file:line", "file#17"), and its columns."""

MAX_JSON = 512 * 2**20
"""Bytes that a whole-file JSON may have; JSONL has no such limit."""


def read_jsonl(path: Path) -> Iterator[Record]:
    """One object a line; blank lines are skipped."""
    for number, line in read_lines(path):
        if line.strip():
            where = f"{path}:{number}"
            yield where, _object(_parse(line.rstrip("\r\n"), path, number), where)


def read_csv(path: Path) -> Iterator[Record]:
    """Comma-separated with a header; semicolons where the header has no comma (as spreadsheets write it in French)."""
    for _, header in read_lines(path):
        yield from _delimited(path, ";" if ";" in header and "," not in header else ",")
        return


def read_tsv(path: Path) -> Iterator[Record]:
    """Tab-separated with a header; cells may be quoted as in CSV."""
    return _delimited(path, "\t")


def read_conll(path: Path) -> Iterator[Record]:
    """A word a line, its columns separated by tabs or spaces, the word first and the tag last; a blank line ends a
    sentence. `-DOCSTART-` lines and comments (`#` and no tab, before a sentence) are skipped.
    """
    words: list[str] = []
    tags: list[str] = []
    start, width = 0, 0
    for number, line in read_lines(path):
        line = line.rstrip("\r\n")
        # Not str.split(): a no-break space belongs to its word.
        cells = [c for c in re.split(r"\t+" if "\t" in line else " +", line) if c]
        if not cells or cells[0] == "-DOCSTART-":
            if words:
                yield f"{path}:{start}", {"tokens": words, "tags": tags}
                words, tags = [], []
            continue
        if line.startswith("#") and not words and "\t" not in line:
            continue
        width = width or len(cells)
        if len(cells) < 2 or len(cells) != width:
            expected = f"{width} columns as before" if width > 1 else "a word and its tag"
            raise DataError(f"{path}:{number}: expected {expected}, got {len(cells)}: {line[:60]!r}")
        start = start if words else number
        words.append(cells[0])
        tags.append(cells[-1])
    if words:
        yield f"{path}:{start}", {"tokens": words, "tags": tags}


def read_json(path: Path) -> Iterator[Record]:
    """The SQuAD file (`data` / `paragraphs` / `qas`), or a list of objects; read whole."""
    text = _whole(path)
    if not text.strip():
        return
    document = _parse(text, path, 1, hint=" (one object a line? then name the file .jsonl)")
    if isinstance(document, list):
        for number, record in enumerate(document, start=1):
            yield f"{path}#{number}", _object(record, f"{path}#{number}")
        return
    for a, article in enumerate(_items(document, "data", f"{path}:1")):
        at = f"{path}#data[{a}]"
        for p, paragraph in enumerate(_items(article, "paragraphs", at)):
            inside = f"{at}.paragraphs[{p}]"
            for q, question in enumerate(_items(paragraph, "qas", inside)):
                record = _object(question, f"{inside}.qas[{q}]")
                where = f"{path}#{record['id']}" if isinstance(record.get("id"), str) else f"{inside}.qas[{q}]"
                yield where, {"title": article.get("title"), "context": paragraph.get("context"), **record}


def read_parquet(path: Path) -> Iterator[Record]:
    """Rows of a Parquet file, numbered from 1, a batch at a time."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra("pyarrow", "train") from None
    number = 0
    with open_bytes(path) as raw:
        try:
            if not raw.read(1):
                return
            raw.seek(0)
            for batch in parquet.ParquetFile(raw).iter_batches(batch_size=1024):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}#{number}", record
        except (arrow.ArrowException, OSError, EOFError, zlib.error, ValueError) as error:  # ValueError: not UTF-8
            raise DataError(f"{path}#{number + 1}: is not readable Parquet: {_first_line(error)}") from None


FORMATS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
    ".conll": read_conll,
    ".bio": read_conll,
    ".iob2": read_conll,
    ".json": read_json,
}
"""Suffix -> reader; each may be followed by `.gz`."""


def _delimited(path: Path, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(max(MAX_LINE, csv.field_size_limit()))  # the default of 131,072 cuts long articles
    rows = csv.reader((line for _, line in read_lines(path)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        where = f"{path}:{rows.line_num + 1}"  # a quoted cell may span lines: name the first
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{where}: {error}; close each quote, and double one inside a quoted cell") from None
        if not cells:
            continue
        if header is None:
            header = cells
            if len(set(header)) < len(header):
                twice = sorted({name for name in header if header.count(name) > 1})
                raise DataError(f"{where}: the header names a column twice: {', '.join(map(repr, twice))}")
        elif len(cells) != len(header):
            raise DataError(f"{where}: the row has {len(cells)} cells, the header has {len(header)}")
        else:
            yield where, dict(zip(header, cells, strict=True))


def _whole(path: Path) -> str:
    parts, size = [], 0
    for _, line in read_lines(path):
        size += len(line)
        if size > MAX_JSON:
            raise DataError(f"{path}: has more than {MAX_JSON:,} characters; write it as .jsonl, which is streamed")
        parts.append(line)
    return "".join(parts)


def _parse(text: str, path: Path, first_line: int, *, hint: str = "") -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{first_line + error.lineno - 1}"
        problem = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        raise DataError(f"{where}: is not valid JSON: {problem}{hint}") from None
    except (ValueError, RecursionError) as error:  # an integer of more than 4,300 digits, brackets without end
        raise DataError(f"{path}:{first_line}: is not JSON that can be read: {_first_line(error)}") from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object with named columns, got {type(value).__name__}")
    return value


def _items(value: Any, key: str, where: str) -> list[Any]:
    items = _object(value, where).get(key)
    if not isinstance(items, list):
        raise DataError(f"{where}: expected a list under '{key}' as in SQuAD, got {type(items).__name__}")
    return items


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
