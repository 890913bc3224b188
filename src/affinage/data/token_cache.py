"""Where tokenised corpora are kept: another run over the same text with the same vocabulary takes what is there."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from affinage import __version__
from affinage.data.shards import shown

VARIABLE = "AFFINAGE_CACHE"


def cache_root() -> Path:
    """`AFFINAGE_CACHE`, or `affinage` where the user's caches are."""
    said = os.environ.get(VARIABLE)
    caches = os.environ.get("XDG_CACHE_HOME")
    return Path(said) if said else (Path(caches) if caches else Path.home() / ".cache") / "affinage"


def token_folder(
    files: Sequence[Path | str],
    data: Mapping[str, str],
    tokenizer: PreTrainedTokenizerFast,
    *,
    held_out: float,
    pairs: bool = False,
) -> Path | None:
    """The folder for the tokens of `files`, which is named after all that they depend on.

    `data`: their fingerprints; `pairs`: the ends of documents are kept too. None where a file is not on this machine,
    and may change under its name, or where the cache cannot be written.
    """
    if any(isinstance(file, str) for file in files):
        return None
    text = [(data[shown(file)], "".join(Path(file).suffixes)) for file in files]  # the suffix says how it is read
    vocabulary = tokenizer.backend_tokenizer.to_str()
    depends = [__version__, text, hashlib.sha256(vocabulary.encode()).hexdigest(), held_out, *["pairs"] * pairs]
    key = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]
    folder = cache_root() / "tokens" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
