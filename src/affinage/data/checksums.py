"""Sizes and sha256 of files: noted when they were written, compared when they are read again."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

_ASIDE = ".tmp"
"""ends the name of a note that is being written; where one stays behind, the run was killed at that moment"""


def checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file under `folder`, by its path in it -> `size` in bytes and `sha256` in 64 hex digits."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != _ASIDE)
    return {str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": _sha256(path)} for path in files}


def damage(folder: Path, noted: Any) -> str | None:
    """In words, the first file of `folder` that is not as `checksums` noted it; None where all are.

    `noted` is as it was read back, and may be anything. Files that it does not name may be there.
    """
    if not noted or not isinstance(noted, dict) or not all(isinstance(sums, dict) for sums in noted.values()):
        return f"the checksums of '{folder}' cannot be read"
    for name, sums in noted.items():
        path = folder / name
        try:
            if (size := path.stat().st_size) != sums.get("size"):
                return f"'{path}' has {size:,} bytes, {sums.get('size')} were written"
            if _sha256(path) != sums.get("sha256"):
                return f"'{path}' is not what was written (its sha256 differs)"
        except FileNotFoundError:
            return f"'{path}' is missing"
        except OSError as error:
            return f"'{path}' cannot be read: {error.strerror or error}"
    return None


def read_note(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, empty where it holds none; None where there is no such file."""
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def write_durably(path: Path, text: str) -> None:
    """Write `path` whole or not at all, and let it reach the disk, even if the machine stops right after."""
    aside = path.with_suffix(_ASIDE)
    with aside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)
    sync_folder(path.parent)


def make_durable(folder: Path) -> None:
    """Let what was written under `folder` reach the disk, before a name or a note says that it is whole."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Let the names in `folder` reach the disk, where the system can do that for a folder."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # file systems over a network may not know it
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
