"""What a folder's weights take on disk, and the precision they are stored in: read from the headers alone."""

import json
from pathlib import Path

_NAMES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"} | {
    f"{sign}{bits}": f"{name}{bits}" for sign, name in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32)
}
_INDICES = {"I64"}
"""position ids, which older checkpoints store beside the parameters"""


def stored_bytes(folder: str | Path | None) -> int:
    """Bytes of the safetensors in a folder; 0 where there are none, or no folder."""
    return sum(path.stat().st_size for path in _files(folder))


def stored_tensor_bytes(folder: str | Path | None) -> int:
    """`stored_bytes` without the files' headers."""
    total = 0
    for path in _files(folder):
        with path.open("rb") as stream:
            total += path.stat().st_size - 8 - int.from_bytes(stream.read(8), "little")
    return total


def stored_as(folder: str | Path | None) -> str | None:
    """`fp32`, `fp16`, `bf16`; `fp16 and fp32` where they are mixed; None where it cannot be read."""
    found: set[str] = set()
    for path in _files(folder):
        try:
            with path.open("rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                header = json.loads(stream.read(min(length, path.stat().st_size)))
            found.update(entry["dtype"] for name, entry in header.items() if name != "__metadata__")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # who loads the model is told what is wrong with it
    return " and ".join(sorted(_NAMES.get(kind, kind) for kind in found - _INDICES)) or None


def _files(folder: str | Path | None) -> list[Path]:
    return [] if folder is None else sorted(Path(folder).glob("*.safetensors"))
