"""How a dataset of the Hugging Face hub becomes records, with its class numbers turned into their names."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from affinage.data.formats import Record
from affinage.errors import InputError, MissingExtra, unknown

T = TypeVar("T")

_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[\w.-]+))?(?:\[(?P<split>[\w.-]+)\])?")


def looks_like_hub_name(source: str) -> bool:
    """Whether `source` has the form `name` or `owner/name`, with `:config` and `[split]` if need be.

    A name that ends like a file (a dot and letters), starts with a dot, or whose first part is a folder here, is a
    path: the hub is not asked about a slip of the keyboard.
    """
    match = _NAME.fullmatch(source)
    if match is None or source.startswith("."):
        return False
    path = Path(match["name"])
    return not path.suffix[1:].isalpha() and (len(path.parts) == 1 or not path.parent.is_dir())


def split_names(source: str) -> list[str]:
    """The splits of a hub dataset. Raises: InputError if it cannot be reached."""
    match = _matched(source)
    return list(_asked(source, lambda hub: hub.get_dataset_split_names(match["name"], match["config"])))


def read_hub(source: str, split: str | None = None) -> Iterator[Record]:
    """Rows of `name[split]`, numbered from 1. Raises: InputError if it cannot be reached or has no such split."""
    match = _matched(source)
    part = match["split"] or split
    if part is None:
        raise InputError(f"dataset '{source}': say which split, for example '{source}[train]'")
    known = split_names(source)
    if part not in known:
        raise InputError(f"dataset '{source}': " + unknown("split", part, known))
    rows = _asked(source, lambda hub: hub.load_dataset(match["name"], match["config"], split=part))
    naming = {column: names for column, feature in rows.features.items() if (names := _class_names(feature))}
    label = source if match["split"] else f"{source}[{part}]"
    for number, record in enumerate(rows, start=1):
        named = {column: _name(record[column], names) for column, names in naming.items()}
        yield f"{label}#{number}", {**record, **named}


def _matched(source: str) -> re.Match[str]:
    match = _NAME.fullmatch(source)
    if match is None:
        raise InputError(f"'{source}' is no dataset name; expected name, owner/name, name:config or name[split]")
    return match


def _asked(source: str, call: Callable[[Any], T]) -> T:
    """What the hub answers to `call`; its errors in one sentence."""
    try:
        import datasets
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise MissingExtra("datasets", "train") from None
    try:
        return call(datasets)
    except (OSError, ValueError, RuntimeError, HfHubHTTPError, HFValidationError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(
            f"'{source}' does not exist here, and as a dataset of the hub it cannot be read: {reason}. "
            "Check the path or the name, and the network"
        ) from None


def _class_names(feature: Any) -> list[str] | None:
    """Names behind a column of class numbers, or of lists of them; None for any other column."""
    inner = getattr(feature, "feature", feature)
    return getattr(inner, "names", None)


def _name(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_name(v, names) for v in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
