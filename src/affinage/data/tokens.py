"""A corpus as token ids in memory-mapped files: tokenised once, shared by every epoch and resumed run."""

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from affinage.data.checksums import checksums, damage, make_durable, read_note, write_durably
from affinage.data.lines import parts_of
from affinage.errors import InputError

_BATCH = 2_000
"""Lines tokenised at a time."""
_CHARACTERS = 2**20
"""Characters tokenised at a time: after a longer line nothing more is added to the batch."""
_COUNTED = 2**22
"""Tokens counted at a time."""


@dataclass(frozen=True)
class TokenStore:
    """Texts one after another, without special tokens."""

    ids: NDArray[np.int32]
    """(number of tokens,)"""
    starts: NDArray[np.int64]
    """(number of texts + 1,): text i is ids[starts[i]:starts[i + 1]]"""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def tokens(self) -> int:
        """Number of tokens, special tokens not counted."""
        return int(self.starts[-1])

    def counts(self, size: int) -> NDArray[np.int64]:
        """(size,) how often each id below `size` is there."""
        found = np.zeros(size, np.int64)
        for start in range(0, self.tokens, _COUNTED):
            found += np.bincount(self.ids[start : start + _COUNTED], minlength=size)
        return found

    @classmethod
    def build(
        cls, lines: Iterable[str], tokenizer: PreTrainedTokenizerFast, folder: Path, *, limit: int | None = None
    ) -> "TokenStore":
        """Tokenise `lines` into `folder`, or map what an earlier run finished there.

        With a `limit` no more lines are taken once that many tokens are there; the last batch of lines may go beyond.

        `done.json`, with the checksums, is written last: a folder without it is started anew.

        Raises: InputError where the files are not what was written.
        """
        done = read_note(folder / "done.json")
        if done is not None and (fault := damage(folder, done.get("files"))):
            raise InputError(f"{fault}; delete the folder '{folder}' and run the same command again: it is made anew")
        if done is None:
            folder.mkdir(parents=True, exist_ok=True)
            lengths: list[int] = [0]
            with (folder / "ids.bin").open("wb") as stream:
                tokens = 0
                for batch in _batches(lines, _BATCH if limit is None else max(1, min(_BATCH, limit // 2_000))):
                    texts = _ids(batch, tokenizer)
                    # Written as bytes: NumPy's own tofile and save say nothing when the disk is full.
                    stream.write(np.fromiter(chain.from_iterable(texts), dtype=np.int32).tobytes())
                    lengths += map(len, texts)
                    tokens += sum(map(len, texts))
                    if limit is not None and tokens >= limit:
                        break
            starts_file = io.BytesIO()
            np.save(starts_file, np.cumsum(lengths, dtype=np.int64))
            (folder / "starts.npy").write_bytes(starts_file.getvalue())
            make_durable(folder)
            noted = {"texts": len(lengths) - 1, "files": checksums(folder)}
            write_durably(folder / "done.json", json.dumps(noted, indent=1))
        starts = np.load(folder / "starts.npy")
        ids = np.memmap(folder / "ids.bin", dtype=np.int32, mode="r") if starts[-1] else np.zeros(0, np.int32)
        return cls(ids, starts)


def _ids(batch: list[str], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """Of each line; a long one in parts, for tokenizers take some 250 bytes of memory a character."""
    *lines, last = batch
    parts = [last] if len(last) <= _CHARACTERS else parts_of(last, _CHARACTERS // 16)
    encode = partial(tokenizer.backend_tokenizer.encode_batch, add_special_tokens=False)
    ids = [encoding.ids for encoding in encode(lines)]
    return [*ids, list(chain.from_iterable(encode([part])[0].ids for part in parts))]


def _batches(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """Up to `size` lines at a time, of which not one more is taken than is handed on."""
    batch: list[str] = []
    characters = 0
    for line in lines:
        batch.append(line)
        characters += len(line)
        if len(batch) == size or characters >= _CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
