"""Files that nobody means well: each is refused in one line that names it, or read; memory stays bounded."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as arrow
import pytest
from pyarrow import parquet

from affinage.data.corpus import corpus_files, corpus_lines
from affinage.data.encoding import encode_texts
from affinage.data.examples import read_examples
from affinage.data.lines import parts_of
from affinage.data.readers import find_parts
from affinage.data.task import load_task
from affinage.data.tokens import TokenStore, _ids
from affinage.errors import DataError, InputError
from affinage.recipe import Recipe
from peak_memory import Cost, cost_of
from tiny import tiny_tokenizer

GIB = 2**30
MIB = 2**20
ROWS = (".jsonl", ".csv", ".tsv", ".conll", ".json", ".parquet")
LONG = b"a" * 1000
TASKS = {".conll": "ner", ".json": "qa"}


def read(path: Path) -> Cost:
    """The file as labelled data, or as a corpus, or as a recipe: what its name says."""
    suffix = path.with_suffix("").suffix if path.suffix in (".gz", ".zst") else path.suffix
    if suffix in (".txt", ".md"):
        return cost_of(
            f"sum(1 for _ in corpus_lines(corpus_files([{str(path)!r}])))",
            imports="from affinage.data.corpus import corpus_files, corpus_lines",
        )
    if suffix == ".yaml":
        return cost_of(f"Recipe.load({str(path)!r})", imports="from affinage.recipe import Recipe")
    task = TASKS.get(suffix, "sentiment")
    return cost_of(
        f"len(read_examples(load_task({task!r}), {str(path)!r}))",
        imports="import pyarrow.parquet\nfrom affinage.data.examples import read_examples\n"
        "from affinage.data.task import load_task",
    )


def refused(path: Path, words: str, *, mebibytes: int) -> None:
    cost = read(path)
    assert cost.said.startswith(("DataError ", "InputError ")), cost
    assert str(path) in cost.said and words in cost.said and "\n" not in cost.said and len(cost.said) < 1000, cost
    assert cost.mebibytes < mebibytes, cost


def members(piece: bytes, times: int) -> bytes:
    """A gzip file of many members: it unfolds to `times` pieces, and takes no time to write."""
    return gzip.compress(piece, mtime=0) * times


# --- too much ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [*ROWS, ".txt", ".md", ".yaml"])
def test_a_gibibyte_without_a_line_break(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    with path.open("wb") as stream:
        stream.truncate(GIB)  # NUL bytes, of which the disk keeps none
    words = {".parquet": "#1: is not readable Parquet", ".yaml": "that is no recipe"}.get(suffix, f"{path}:1: ")
    refused(path, words, mebibytes=150)


@pytest.mark.parametrize("suffix", [".jsonl", ".txt"])
def test_a_gibibyte_of_letters_in_one_line_of_an_archive(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}.gz"
    path.write_bytes(members(b"a" * 16 * MIB, 64))
    refused(path, f"{path}", mebibytes=150)


@pytest.mark.parametrize(
    ("name", "head", "piece"),
    [
        ("a.jsonl.gz", b"", b'{"text": "%b", "label": 1}\n' % LONG),
        ("a.csv.gz", b"text,label\n", b"%b,1\n" % LONG),
        ("a.tsv.gz", b"text\tlabel\n", b"%b\t1\n" % LONG),
        ("a.conll.gz", b"", b"%b O\n\n" % LONG),
        ("a.json.gz", b"[", b'{"id": "%b"},\n' % LONG),
        ("a.parquet.gz", b"PAR1", b"\0" * 16),
        ("a.txt.gz", b"", b"%b\n" % LONG),
    ],
)
def test_an_archive_that_unfolds_to_half_a_gibibyte(name: str, head: bytes, piece: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(head, mtime=0) + members(piece * (4 * MIB // len(piece)), 128))
    refused(path, "archive bomb", mebibytes=400)


def test_a_zstandard_archive_that_unfolds_a_thousandfold(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.zst"
    with arrow.CompressedOutputStream(str(path), "zstd") as stream:
        for _ in range(128):
            stream.write((LONG + b"\n") * (MIB // len(LONG)))
    refused(path, "archive bomb", mebibytes=150)


@pytest.mark.parametrize("name", ["a.parquet", "a.txt"])
def test_a_parquet_cell_of_a_quarter_gibibyte(name: str, tmp_path: Path) -> None:
    table = arrow.table({"text": ["a", "b" * (GIB // 4)], "label": [0, 1]})
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path, compression="zstd")
    if name == "a.txt":  # as a corpus
        with pytest.raises(DataError, match="archive bomb"):
            list(corpus_lines(corpus_files([path])))
    else:
        refused(path, "archive bomb", mebibytes=150)


def test_an_honest_large_archive_is_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(members(os.urandom(MIB).hex().encode() + b"\n", 20))
    assert len(list(corpus_lines(corpus_files([path])))) == 20


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b'text,label\n"' + b"a" * 17 * MIB, ":2: the line has more than"),
        ("a.csv", b'text,label\n"' + (LONG + b"\n") * 17_000, "is a quote left open before?"),
        ("a.csv", b"text,label\na,1\n" + b'"%b\n",' % LONG * 17_000, "is a quote left open before?"),
        ("a.csv", b"," * 15 * MIB, ":1: the header names 15,728,641 columns"),
        ("a.tsv", b"text\tlabel\n" + b"\t" * 8 * MIB, ":2: the row has 8388609 cells, the header has 2"),
        ("a.conll", b"a O\n" * 200_000, ":1: the sentence has more than 100,000 words"),
        ("a.conll", b"a O " * 5 * MIB, ":1: the line has more than"),
        ("a.jsonl", b'{"text": "' + b"a" * 2 * MIB + b'", "label": 1}', ":1: 'text' has 2,097,152 characters"),
        ("a.jsonl", b'{"text": "a", "label": "' + b"a" * 2 * MIB + b'"}', ":1: 'label' has 2,097,152 characters"),
        ("a.jsonl", b"[" * 10 * MIB, ":1: is not JSON that can be read"),
        ("a.jsonl", b"[" + b"[]," * MIB + b"[]]", ":1: expected a JSON object"),
        ("a.json", b"[" + b"{" * 10 * MIB, ":1: is not"),
        ("a.yaml", b"".join(b"key%d: 1\n" % i for i in range(1_000_000)), "that is no recipe"),
        ("a.yaml", b"".join(b"k%d:\n" % i for i in range(12_000)), "more than 10,000 keys and values"),
        ("a.yaml", b"".join(b"k%d:\n" % i for i in range(4_900)), "more problems"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else None,
)  # fmt: skip
def test_one_thing_without_end(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    cost = read(path)
    assert words in cost.said and len(cost.said) < 4000, cost
    assert cost.mebibytes < 500, cost


@pytest.mark.slow
def test_a_json_file_larger_than_what_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"[" + (b" " * 1023 + b"\n") * (130 * 1024))
    refused(path, "write it as .jsonl", mebibytes=400)


# --- what never ends, or is no file ----------------------------------------------------------------------------------


def opened(path: Path) -> None:
    match path.suffix:
        case ".txt":
            list(corpus_lines(corpus_files([path])))
        case ".yaml":
            Recipe.load(path)
        case _:
            read_examples(load_task("sentiment"), path)


@pytest.mark.parametrize("kind", ["pipe", "endless", "endless name"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".conll", ".json", ".parquet", ".jsonl.gz", ".txt", ".yaml"])
def test_pipes_and_devices_are_refused_and_not_waited_for(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"train{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        path = tmp_path / ("a" * 300 + suffix)
    with pytest.raises(InputError) as caught:
        opened(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_pipe_within_a_folder_of_parts(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.jsonl")
    with pytest.raises(InputError, match="is a pipe or a device"):
        read_examples(load_task("sentiment"), find_parts(tmp_path)["train"])
    with pytest.raises(InputError, match=r"File name too long"):
        find_parts(tmp_path / ("a" * 300))


# --- text of every kind ----------------------------------------------------------------------------------------------

ODD = (
    "שלום עולם, \u202bمرحبا بالعالم\u202c",
    "👩‍👩‍👧‍👦 une famille 🏳️‍🌈 et un drapeau 🇫🇷",
    "a\u0301\u0302\u0303" * 30,
    "deux\u2028lignes\u2029et\x85trois",
    "zéro\u200bwidth\u200d, \u00ad césure, \ufeff BOM",
    "\U0001d54f\U0001f600𠜎 hors du plan de base",
    "\u202e ablipsnart \u202d",
    "tabulation\tet\x0bautres\x0cblancs",
)


def jsonl(texts: tuple[str, ...]) -> bytes:
    ends = ("\n", "\r\n", "\r")
    rows = [json.dumps({"text": t, "label": 1}, ensure_ascii=i % 2 == 0) + ends[i % 3] for i, t in enumerate(texts)]
    return "".join(rows).encode("utf-8-sig")


def table(texts: tuple[str, ...]) -> bytes:
    ends = ("\n", "\r\n", "\r")
    rows = [f'"{text}",1{ends[i % 3]}' for i, text in enumerate(texts)]
    return ("text,label\r\n" + "".join(rows)).encode("utf-8-sig")


@pytest.mark.parametrize(("name", "form"), [("a.jsonl", jsonl), ("a.csv", table)])
def test_any_script_and_any_newline_is_read_as_it_stands(
    name: str, form: Callable[[tuple[str, ...]], bytes], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(form(ODD))
    found = [getattr(e, "text", "") for e in read_examples(load_task("sentiment"), tmp_path / name)]
    assert found == list(ODD)


def test_any_script_becomes_rows_of_tokens(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("camembert")
    for text, row in zip(ODD, encode_texts(tokenizer.backend_tokenizer, ODD, max_length=64), strict=True):
        assert row.offsets.min() >= 0 and row.offsets.max() <= len(text)
    path = tmp_path / "a.txt"
    path.write_bytes("\r".join(ODD[:4]).encode("utf-8-sig") + "\r\n\n\r".join(ODD[4:]).encode())
    lines = list(corpus_lines(corpus_files([path])))
    assert lines == [*(t.strip() for t in ODD[:3]), ODD[3] + ODD[4], *(t.strip() for t in ODD[5:])]
    store = TokenStore.build(lines, tokenizer, tmp_path / "tokens")
    assert len(store) == len(lines) and store.tokens > 100


def test_a_long_line_is_tokenised_in_parts_to_the_same_tokens(tmp_path: Path) -> None:
    words = " ".join(f"{i} fromages" for i in range(20_000))
    assert "".join(parts_of(words, 1000)) == words and max(map(len, parts_of(words, 1000))) <= 1000
    assert parts_of("a" * 25, 10) == ["a" * 10, "a" * 10, "a" * 5]
    tokenizer = tiny_tokenizer("camembert")
    whole = _ids([words[:3000]], tokenizer)
    parts = [
        i
        for part in parts_of(words[:3000], 100)
        for i in tokenizer.backend_tokenizer.encode(part, add_special_tokens=False).ids
    ]
    assert whole == [parts]
