"""Where labelled rows come from: a file of any known format, a folder of parts, or a dataset of the hub."""

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affinage.data.formats import FORMATS, Record
from affinage.data.hub import looks_like_hub_name, read_hub, split_names
from affinage.data.lines import is_gzip
from affinage.errors import DataError, InputError, legible

log = logging.getLogger(__name__)

PARTS: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("valid", "validation", "dev", "val", "eval", "validation_matched", "dev_matched"),
    "test": ("test",),
}
"""Part of a dataset -> the names it goes by, in any case, also with `-00000-of-00001` behind them."""


@dataclass(frozen=True)
class Row:
    """One row: the value of each field, and where it stands."""

    values: dict[str, Any]
    """field -> value as the file holds it; an optional field that is not there is left out"""
    where: str
    """"file:line", "file#17" (Parquet, JSON lists), "file#id" (SQuAD), "name[train]#17" (hub)"""


def read_rows(
    source: str | Path, *, columns: Mapping[str, str], optional: Collection[str] = (), split: str | None = None
) -> Iterator[Row]:
    """The rows of `source`, in order, with the fields that `columns` names (field -> column of the data).

    `source`: a file (`FORMATS`, each plain or .gz), or a hub dataset `name`, `owner/name`, `name:config`, as
    `name[split]` or with `split`.

    Raises: InputError if there is no such source or it holds no row; DataError naming file:line for a bad row or a
    column that is missing (fields in `optional` may be).
    """
    empty = True
    for where, record in _records(source, split):
        empty = False
        missing = [field for field, column in columns.items() if column not in record and field not in optional]
        if missing:
            raise DataError(f"{where}: {_missing(missing, columns, record)}")
        yield Row({f: record[c] for f, c in columns.items() if c in record}, where)
    if empty:
        raise DataError(f"{source}:1: is empty: no row in it")


def part_named(name: str | None) -> str:
    """dev, validation -> valid; a name that is none of these is returned as it is, None as nothing."""
    name = name or ""
    plain = re.sub(r"-\d+-of-\d+$", "", name).lower()
    return next((part for part, names in PARTS.items() if plain in names), name)


def find_parts(path: str | Path) -> dict[str, str]:
    """The parts of a dataset, of train, valid and test those that are there: part -> source for `read_rows`.

    A folder is searched for `train.*`, `valid.*` and `test.*` (or what else `PARTS` calls them); a single file is
    {"all": file}; a hub name gives the splits of the same names. What is left alone is logged.

    Raises: InputError if there is nothing of the kind, or a part is there twice.
    """
    folder = Path(path)
    if _is_there(folder) and folder.is_dir():
        return _parts_of(folder)
    if _is_there(folder) or not looks_like_hub_name(str(path)):
        _format(folder)
        return {"all": str(path)}
    if str(path).endswith("]"):
        return {"all": str(path)}
    splits = split_names(str(path))
    parts = _by_part(str(path), {name: name for name in splits}, "split")
    if not parts:
        raise InputError(
            f"dataset '{path}' has no train, validation or test split; it has: {', '.join(splits)}. "
            f"Name one as '{path}[{splits[0] if splits else 'split'}]'"
        )
    return {part: f"{path}[{name}]" for part, name in parts.items()}


def _parts_of(folder: Path) -> dict[str, str]:
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror or error}") from None
    files = [p for p in inside if _suffix(p) in FORMATS and not p.name.startswith(".")]
    parts = _by_part(str(folder), {p.name: p.name.split(".")[0] for p in files}, "file")
    if not parts:
        there = ", ".join(p.name for p in inside[:10]) or "nothing"
        raise InputError(f"{folder}: expected train.*, valid.* or test.* with a suffix of {_allowed()}; found {there}")
    return {part: str(folder / name) for part, name in parts.items()}


def _by_part(source: str, called: Mapping[str, str], what: str) -> dict[str, str]:
    """Part -> which of these it is. `called`: each -> its name without suffix. Raises: InputError for two of a part."""
    parts: dict[str, str] = {}
    left = []
    for one, name in called.items():
        part = part_named(name)
        if part not in PARTS:
            left.append(one)
        elif part in parts:
            raise InputError(f"{source}: several {what}s for its {part} part: {parts[part]}, {one}; keep one")
        else:
            parts[part] = one
    if parts and left:
        known = ", ".join(name for names in PARTS.values() for name in names)
        log.warning("%s: left alone, for parts are called %s: %s", source, known, ", ".join(left[:10]))
    return {part: parts[part] for part in PARTS if part in parts}


def _records(source: str | Path, split: str | None) -> Iterator[Record]:
    path = Path(source)
    if not _is_there(path) and looks_like_hub_name(str(source)):
        return read_hub(str(source), split)
    return FORMATS[_format(path)](path)


def _format(path: Path) -> str:
    """The key of `FORMATS` for `path`. Raises: InputError if it does not exist, is a folder, or has no known suffix."""
    if not _is_there(path):
        raise InputError(
            f"{path}: does not exist; expected a file ({_allowed()}), a folder of parts, or the name of a hub dataset"
        )
    if path.is_dir():
        raise InputError(f"{path}: is a folder, a file is expected")
    suffix = _suffix(path)
    if suffix not in FORMATS:
        raise InputError(f"{path}: the suffix '{suffix}' names no known format; known: {_allowed()}")
    return suffix


def _is_there(path: Path) -> bool:
    """Raises: InputError where that cannot be told: a name too long for a disk, a folder closed to us."""
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if is_gzip(path) else path).suffix.lower()


def _allowed() -> str:
    return ", ".join(FORMATS) + " (plain or .gz)"


def _missing(fields: list[str], columns: Mapping[str, str], record: Mapping[str, Any]) -> str:
    there = [legible(name, 60) for name in record]
    taken = set(columns.values())
    example = next((name for name in there if name not in taken), there[0] if there else "name")
    names = ", ".join(f"'{columns[f]}'" for f in fields)
    return (
        f"no column {names}; columns there: {', '.join(there)[:300] or 'none'}. "
        f"Say which one it is, for example: --column {fields[0]}={example}"
    )
