"""How a sentence's vector is made of its tokens': as the files of sentence-transformers beside the weights say."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from affinage.errors import InputError
from affinage.models.shipped import located

MODULES = "modules.json"
"""the file by which a folder of sentence-transformers is known"""
Mode = Literal["mean", "cls", "max"]


class Pooling(BaseModel):
    """What is done with the last hidden states (B, T, H) of a text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode = "mean"
    """of the real tokens, special ones included; "cls": the first token's state"""
    normalize: bool = True
    """whether vectors get length 1"""
    prompt: str = ""
    """what is put before every text"""
    max_length: int | None = None
    """tokens that a text is cut to; None: all that the model takes"""


def pool(last: Tensor, mask: Tensor, mode: Mode) -> Tensor:
    """(B, T, H) last hidden states and (B, T) mask, 1 at real tokens -> (B, H)."""
    if mode == "cls":
        return last[:, 0]
    real = mask[..., None].to(last.dtype)
    if mode == "mean":
        return (last * real).sum(1) / real.sum(1)
    return last.masked_fill(real == 0, -torch.inf).amax(1)


def read_pooling(name_or_path: str | Path) -> Pooling | None:
    """What a model's sentence-transformers files say; None where it has none.

    Raises: InputError for what they may say and affinage does not do.
    """
    modules = _read(name_or_path, MODULES)
    if modules is None:
        return None
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(
            f"model '{name_or_path}': its {MODULES} lists {', '.join(kinds)}; supported are Transformer, Pooling and, "
            "after them, Normalize"
        )
    rest = _read(name_or_path, "config_sentence_transformers.json") or {}
    default = rest.get("default_prompt_name")
    bert = _read(name_or_path, "sentence_bert_config.json") or {}
    pooled = _read(name_or_path, f"{modules[1]['path']}/config.json") or {}
    prompts = rest.get("prompts") or {}
    if default is not None and default not in prompts:
        raise InputError(
            f"model '{name_or_path}': its default prompt '{default}' is none of its prompts: {', '.join(prompts)}"
        )
    if bert.get("do_lower_case"):
        raise InputError(f"model '{name_or_path}': do_lower_case in its sentence_bert_config.json is not supported")
    prompt = str(prompts[default]) if default is not None else ""
    if prompt and not pooled.get("include_prompt", True):
        raise InputError(f"model '{name_or_path}': leaving its prompt out of the mean is not supported")
    return Pooling(
        mode=_mode(pooled, name_or_path),
        normalize=len(kinds) > 2,
        prompt=prompt,
        max_length=bert.get("max_seq_length"),
    )


def _mode(config: dict[str, Any], where: str | Path) -> Mode:
    """The pooling mode, of the one setting of today or of the flags of old."""
    flags: dict[str, Mode] = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_max_tokens": "max",
    }
    said = config.get("pooling_mode")
    if said is None:
        on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        said = [flags.get(key, key) for key in on]
    found = [said] if isinstance(said, str) else list(said)
    if len(found) != 1 or found[0] not in flags.values():
        raise InputError(
            f"model '{where}': its pooling is {', '.join(map(str, found)) or 'not said'}; supported: mean, cls, max"
        )
    mode: Mode = found[0]  # type: ignore[assignment]  # one of the flags' values
    return mode


def _read(name_or_path: str | Path, file: str) -> Any:
    """A JSON file of a folder or of a model on the hub; None where it has none."""
    path = _found(located(name_or_path), file)
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read: {error}") from None


def _found(name: str, file: str) -> Path | None:
    if Path(name).is_dir():
        path = Path(name) / file
        return path if path.is_file() else None
    from transformers.utils.hub import cached_file

    try:
        found = cached_file(
            name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
        )
    except (OSError, ValueError):
        return None
    return None if found is None else Path(found)
