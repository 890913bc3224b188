"""Which shards stand behind what a person names: files here, `s3://` and other URLs, data sets of the hub."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from affinage.data.shards import COLUMN, SUFFIXES, HubShard, ParquetShard, Shard, TextShard, no_column, shown
from affinage.errors import InputError

_CURES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "adl": "adlfs"}
_CURES |= dict.fromkeys(("http", "https"), "aiohttp requests")
_CHECKSUMS = ("ETag", "etag", "md5Hash", "content_md5", "crc32c", "checksum")
"""Where the file systems of fsspec keep what tells one content from another."""


def open_shards(sources: Sequence[Path | str]) -> list[Shard]:
    """Every shard, in the order given: of a file here (Path), of a URL (it may be a pattern or a folder), of the hub.

    Raises: InputError where one cannot be reached, or holds no text.
    """
    shards: list[Shard] = []
    for source in sources:
        if isinstance(source, Path):
            shards.append(_file(source))
        else:
            shards += _remote(source) if "://" in source else _hub(source)
    return shards


def fingerprint_of(shards: Sequence[Shard]) -> str:
    """sha256 of the shards' names, sizes and checksums, 64 hex digits; nothing is read."""
    text = "\n".join(f"{shard.name} {shard.tag}" for shard in shards)
    return hashlib.sha256(text.encode()).hexdigest()


def _file(path: Path) -> Shard:
    size = path.stat().st_size if path.is_file() else None
    return _shard(str(path), f"{size}", lambda: path.open("rb"))


def _shard(name: str, tag: str, opener: Callable[[], IO[bytes]]) -> Shard:
    return (ParquetShard if name.endswith(".parquet") else TextShard)(name, tag, opener)


def _remote(url: str) -> Iterator[Shard]:
    protocol = url.partition("://")[0].rpartition("::")[2]
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url)
        found = _listed(system, path, web=protocol in ("http", "https"))
    except ImportError as error:
        cure = f"; install it with: pip install {_CURES[protocol]}" if protocol in _CURES else ""
        raise InputError(f"corpus '{shown(url)}' needs a package that is not installed ({error}){cure}") from None
    except FileNotFoundError:
        raise InputError(f"corpus '{shown(url)}' does not exist") from None
    except Exception as error:  # an object store's library raises what it likes: this is its rim
        raise InputError(f"corpus '{shown(url)}' cannot be reached: {_first_line(error)}") from error
    if not found:
        raise InputError(f"corpus '{shown(url)}' holds no {', '.join(SUFFIXES)} file")
    for place, info in sorted(found.items()):
        checksum = next((str(info[key]) for key in _CHECKSUMS if info.get(key)), "")
        name = shown(system.unstrip_protocol(place))
        yield _shard(name, f"{info.get('size')} {checksum}", partial(system.open, place, "rb"))


def _listed(system: Any, path: str, *, web: bool) -> dict[str, dict[str, Any]]:
    """Path -> what is known of each file that `path` names. On the web `?` begins a query, and nothing is a folder."""
    if any(sign in path for sign in ("*[" if web else "*?[")):
        matching = system.glob(path, detail=True)
        return {place: info for place, info in matching.items() if info.get("type") != "directory"}
    if not web and not path.endswith(SUFFIXES) and system.isdir(path):
        inside = system.find(path, detail=True)
        return {place: info for place, info in inside.items() if place.endswith(SUFFIXES)}
    return {path: system.info(path)}


def _hub(source: str) -> Iterator[Shard]:
    """Shards of the hub data set `name` or `name:configuration`, split `train`."""
    from datasets import load_dataset

    name, _, configuration = source.partition(":")
    try:
        rows = load_dataset(name, configuration or None, split="train", streaming=True)
        columns, count = rows.column_names, rows.num_shards
        if columns is not None:
            if COLUMN not in columns:
                raise InputError(no_column(source, columns))
            rows = rows.select_columns([COLUMN])
        parts = [rows.shard(num_shards=count, index=i) for i in range(count)]
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"corpus '{source}' is no file or folder here, and the hub did not give it: {_first_line(error)}"
        ) from error
    for i, part in enumerate(parts):
        yield HubShard(source if count == 1 else f"{source}, shard {i + 1} of {count}", "", part)


def _first_line(error: BaseException) -> str:
    text = shown(str(error).strip())
    return text.splitlines()[0][:200] if text else type(error).__name__
