"""A corpus as token ids in memory-mapped files: tokenised once, shared by every epoch and resumed run."""

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

_BATCH = 2_000
"""Lines tokenised at a time."""


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

    @classmethod
    def build(cls, lines: Iterable[str], tokenizer: PreTrainedTokenizerFast, folder: Path) -> "TokenStore":
        """Tokenise `lines` into `folder`, or map what an earlier run finished there.

        `done.json` is written last: a folder without it is started anew.
        """
        if not (folder / "done.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            lengths: list[int] = [0]
            with (folder / "ids.bin").open("wb") as stream:
                for batch in _batches(lines):
                    encodings = tokenizer.backend_tokenizer.encode_batch(batch, add_special_tokens=False)
                    texts = [encoding.ids for encoding in encodings]
                    # Written as bytes: NumPy's own tofile and save say nothing when the disk is full.
                    stream.write(np.fromiter(chain.from_iterable(texts), dtype=np.int32).tobytes())
                    lengths += map(len, texts)
            starts_file = io.BytesIO()
            np.save(starts_file, np.cumsum(lengths, dtype=np.int64))
            (folder / "starts.npy").write_bytes(starts_file.getvalue())
            (folder / "done.json").write_text(json.dumps({"texts": len(lengths) - 1}), encoding="utf-8")
        starts = np.load(folder / "starts.npy")
        ids = np.memmap(folder / "ids.bin", dtype=np.int32, mode="r") if starts[-1] else np.zeros(0, np.int32)
        return cls(ids, starts)


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(lines)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
