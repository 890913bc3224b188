"""How each file format becomes records: path -> (where, {column: value}), streamed where the format allows it."""

import csv
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from affinage.data.lines import MAX_LINE, is_gzip, open_bytes, read_lines
from affinage.data.unfolding import rows_at_once
from affinage.errors import DataError, MissingExtra, legible

Record = tuple[str, dict[str, Any]]
"""Where it stands ("file:line", "file#17"), and its columns."""

MAX_JSON = 128 * 2**20
"""Characters that a whole-file JSON may have; JSONL has no such limit."""
MAX_COLUMNS = 10_000
_TAG = re.compile(r"(O|[BIESLUM]-\S+)$")
MAX_WORDS = 100_000
"""Of a sentence in CoNLL."""


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
    """Tab-separated with a header. A quote is a character of its cell, as in GLUE's own files, but for a cell that is
    quoted as in CSV from end to end, tabs and line breaks in it included.
    """
    return _records(path, _tab_separated(path), "\t")


def read_conll(path: Path) -> Iterator[Record]:
    """A word a line, its columns separated by tabs or spaces, the word first and the tag last; a blank line ends a
    sentence. `-DOCSTART-` lines and comments (`#` and no tab, before a sentence, and not a word with its tag in as many
    columns as before) are skipped.
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
        if (
            line.startswith("#")
            and not words
            and "\t" not in line
            and not (len(cells) == (width or 2) and _TAG.match(cells[-1]))
        ):
            continue
        width = width or len(cells)
        if len(cells) < 2 or len(cells) != width:
            expected = f"{width} columns as before" if width > 1 else "a word and its tag"
            raise DataError(f"{path}:{number}: expected {expected}, got {len(cells)}: {line[:60]!r}")
        start = start if words else number
        if len(words) == MAX_WORDS:
            raise DataError(
                f"{path}:{start}: the sentence has more than {MAX_WORDS:,} words; end each with a blank line"
            )
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
                name = record.get("id")
                named = isinstance(name, str) and len(name) < 100 and name.isprintable()
                where = f"{path}#{name}" if named else f"{inside}.qas[{q}]"
                yield where, {"title": article.get("title"), "context": paragraph.get("context"), **record}


def read_parquet(path: Path) -> Iterator[Record]:
    """Rows of a Parquet file, numbered from 1, a batch at a time."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra("pyarrow", "train") from None
    # ArithmeticError, LookupError: a date that Python has no object for, a time zone without a name.
    faults = (arrow.ArrowException, ArithmeticError, LookupError, OSError, EOFError, TypeError, ValueError, zlib.error)
    number = 0
    with _seekable(path) as raw:
        try:
            if not raw.read(1):
                return
            raw.seek(0)
            table = parquet.ParquetFile(raw)
            _check_header(table.schema_arrow.names, f"{path}#1")
            rows = rows_at_once(f"{path}#1", table)
            for batch in table.iter_batches(batch_size=rows):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}#{number}", record
        except faults as error:
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
    """As CSV."""
    spent = 0

    def lines() -> Iterator[str]:
        nonlocal spent
        for number, line in read_lines(path):
            spent += len(line)
            if spent > MAX_LINE:
                raise DataError(
                    f"{path}:{number}: a row of more than {MAX_LINE:,} characters ends here or later; is a quote left "
                    "open before?"
                )
            yield line

    def rows() -> Iterator[tuple[int, list[str]]]:
        nonlocal spent
        read = _csv_rows(lines(), delimiter)
        while True:
            first = read.line_num + 1  # a quoted cell may span lines: name the first
            spent = 0
            cells = _next_row(read, f"{path}:{first}")
            if cells is None:
                return
            yield first, cells

    return _records(path, rows(), delimiter)


def _tab_separated(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, cells). A line of as many cells as the header stands alone, unless its last cell opens a quote and what
    follows is no whole line; any other is read as CSV, on over the lines that it takes.
    """
    lines, width = iter(read_lines(path)), 0
    ahead = next(lines, None)
    while ahead is not None:
        (number, line), ahead = ahead, next(lines, None)
        cells = line.rstrip("\r\n").split("\t")
        width = width or len(cells)
        opened = cells[-1].startswith('"') and cells[-1].count('"') % 2 == 1
        if len(cells) == width and not (opened and ahead and ahead[1].count("\t") + 1 != width):
            yield number, [_unquoted(cell) for cell in cells] if cells != [""] else []
            continue
        rest = (text for _, text in lines)
        read = _csv_rows(chain([line], [ahead[1]] if ahead else [], rest), "\t")
        found = _next_row(read, f"{path}:{number}")
        if read.line_num > 1:
            ahead = next(lines, None)
        yield number, found or []


def _unquoted(cell: str) -> str:
    """A cell that is quoted from end to end, each quote in it doubled, without that; any other as it is."""
    inner = cell[1:-1]
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else cell


def _csv_rows(lines: Iterable[str], delimiter: str) -> Any:
    csv.field_size_limit(max(MAX_LINE, csv.field_size_limit()))  # the default of 131,072 cuts long articles
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _next_row(read: Any, where: str) -> list[str] | None:
    """The cells of the next row; None after the last."""
    try:
        cells: list[str] | None = next(read, None)
    except csv.Error as error:
        raise DataError(f"{where}: {legible(error)}; close each quote, and double one inside a quoted cell") from None
    return cells


def _records(path: Path, rows: Iterable[tuple[int, list[str]]], delimiter: str) -> Iterator[Record]:
    """Rows under a header, which is the first."""
    header: list[str] | None = None
    for number, cells in rows:
        where = f"{path}:{number}"
        if not cells:
            continue
        if header is None:
            header = [name.strip() for name in cells]
            if delimiter != "\t" and len(header) == 1 and "\t" in header[0]:
                raise DataError(f"{where}: the header has tabs and no '{delimiter}': name a tab-separated file .tsv")
            _check_header(header, where)
        elif len(cells) != len(header):
            raise DataError(f"{where}: the row has {len(cells)} cells, the header has {len(header)}")
        else:
            yield where, dict(zip(header, cells, strict=True))


def _check_header(header: list[str], where: str) -> None:
    if len(header) > MAX_COLUMNS:
        raise DataError(f"{where}: the header names {len(header):,} columns, more than {MAX_COLUMNS:,}")
    if twice := sorted(name for name, times in Counter(header).items() if times > 1):
        names = ", ".join(f"{name[:60]!r}" for name in twice[:10])
        raise DataError(f"{where}: the header names a column twice: {names}")


@contextmanager
def _seekable(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, in any order: a .gz, which would be unpacked again at each step back, is unpacked aside."""
    with open_bytes(path) as raw:
        if not is_gzip(path):
            yield raw
            return
        with TemporaryFile() as aside:
            try:
                copyfileobj(raw, aside)
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(f"{path}#1: cannot be unpacked: {_first_line(error)}") from None
            aside.seek(0)
            yield aside


def _whole(path: Path) -> str:
    parts, size = [], 0
    for number, line in read_lines(path):
        size += len(line)
        if size > MAX_JSON:
            raise DataError(
                f"{path}:{number}: more than {MAX_JSON:,} characters up to here; write it as .jsonl, which is streamed"
            )
        parts.append(line)
    return "".join(parts)


def _parse(text: str, path: Path, first_line: int, *, hint: str = "") -> Any:
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        where = f"{path}:{first_line + error.lineno - 1}"
        problem = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        raise DataError(f"{where}: is not valid JSON: {problem}{hint}") from None
    # An integer of more than 4,300 digits, brackets without end, a key that stands in an object twice.
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{first_line}: is not JSON that can be read: {_first_line(error)}") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        name = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"the key {name[:60]!r} stands in an object twice")
    return found


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
    return legible((str(error).strip() or type(error).__name__).splitlines()[0], 200)
