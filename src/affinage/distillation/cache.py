"""The teacher's last hidden states on disk, so that a row that comes again is not computed again."""

import json
import math
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affinage.data.checksums import read_note, write_durably
from affinage.errors import InputError

Dtype = Literal["float16", "float32"]


class TeacherCache:
    """(variants x rows, T, H) hidden states in one file, each row with a checksum; rows are filled in any order.

    A row that was not written, or not whole when the process was killed, is not there: its checksum does not fit.
    """

    def __init__(
        self,
        folder: Path,
        *,
        variants: int,
        rows: int,
        tokens: int,
        width: int,
        dtype: Dtype,
        made_of: str | Mapping[str, Any],
    ) -> None:
        """`variants` maskings of `rows` rows of `tokens` tokens; `made_of`: fingerprints of all they depend on.

        Raises: InputError where the folder holds the cache of something else, or the disk has no room for it.
        """
        self._shape = (variants * rows, tokens, width)
        self._rows, self._dtype = rows, np.dtype(dtype)
        noted = folder / "cache.json"
        refuse_other_cache(folder, made_of)
        said = {"shape": list(self._shape), "dtype": dtype, "made_of": _as_noted(made_of)}
        try:
            if not noted.is_file():
                sizes = {
                    "states.bin": math.prod(self._shape) * self._dtype.itemsize,
                    "checksums.bin": self._shape[0] * 8,
                }
                _make(folder, sizes, json.dumps(said))
            if read_note(noted) != said:
                raise InputError(
                    f"teacher cache '{folder}' was made of something else; delete it, or choose another folder"
                )
            self._states = np.memmap(folder / "states.bin", self._dtype, "r+", shape=self._shape)
            self._sums = np.memmap(folder / "checksums.bin", np.uint32, "r+", shape=(self._shape[0], 2))
        except OSError as error:
            reason = error.strerror or error
            raise InputError(
                f"teacher cache '{folder}' cannot be made: {reason}; make room, choose another --out, or leave the "
                "cache out (--set teacher_cache=off)"
            ) from None

    @property
    def tokens(self) -> int:
        """Of a row."""
        return self._shape[1]

    @property
    def size_bytes(self) -> int:
        """On disk, checksums left out."""
        return self._states.nbytes

    def get(self, variant: Sequence[int], row: Sequence[int]) -> Tensor | None:
        """(B, T, H) float32 states of the rows, or None where one of them is not there."""
        places = self._places(variant, row)
        if not self._sums[places, 0].all():
            return None
        found = self._states[places]
        if any(_checksum(states) != kept for states, kept in zip(found, self._sums[places, 1], strict=True)):
            return None
        return torch.from_numpy(found.astype(np.float32))

    def put(self, variant: Sequence[int], row: Sequence[int], states: Tensor) -> Tensor:
        """Keep (B, T, H) states; returned as `get` gives them, so that the first pass sees what later ones do."""
        places = self._places(variant, row)
        stored = states.detach().to("cpu", torch.float32).numpy().astype(self._dtype)
        self._sums[places, 0] = 0
        self._states[places] = stored
        self._sums[places, 1] = [_checksum(one) for one in stored]
        self._sums[places, 0] = 1
        return torch.from_numpy(stored.astype(np.float32)).to(states.device)

    def _places(self, variant: Sequence[int], row: Sequence[int]) -> list[int]:
        return [v * self._rows + r for v, r in zip(variant, row, strict=True)]


def refuse_other_cache(folder: Path, made_of: str | Mapping[str, Any]) -> None:
    """Raises: InputError where `folder` holds a cache that was made of something else: of what, it says."""
    noted = folder / "cache.json"
    before = (read_note(noted) or {}).get("made_of") if noted.is_file() else None
    now = _as_noted(made_of)
    if before is None or before == now:
        return
    what = "something else"
    if isinstance(before, dict) and isinstance(now, dict):
        what = "another " + ", ".join(key for key in sorted({*before, *now}) if before.get(key) != now.get(key))
    raise InputError(f"teacher cache '{folder}' was made of {what}; delete it, or choose another folder")


def _as_noted(made_of: str | Mapping[str, Any]) -> Any:
    """As it is read back from the note."""
    return json.loads(json.dumps(made_of, sort_keys=True))


def _make(folder: Path, sizes: Mapping[str, int], note: str) -> None:
    """The files aside, then in place at once: several processes may want the cache, and the first one's stays."""
    aside = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        for name, size in sizes.items():
            _reserve(aside / name, size)
        write_durably(aside / "cache.json", note)
        aside.rename(folder)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        if not (folder / "cache.json").is_file():
            raise


def _reserve(path: Path, size: int) -> None:
    """A file of zeros whose room on the disk is taken: a mapped file that finds the disk full kills the process."""
    with path.open("wb") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, size)
        else:
            stream.truncate(size)


def _checksum(states: NDArray[np.floating[Any]]) -> int:
    return zlib.crc32(np.ascontiguousarray(states).data)
