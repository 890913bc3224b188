"""How a model of any form lies in a folder: a stock one as transformers writes it, any other with its structure."""

import logging
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from affinage.errors import InputError
from affinage.models.layout import layout_of
from affinage.models.structure import Structure, apply_structure_, structure_of

STOCK, COMPRESSED, STRUCTURE = "model.safetensors", "compressed.safetensors", "structure.json"
"""Stock loaders find no weights in a folder of a compressed model, and say so; they would fill it at random else."""

log = logging.getLogger(__name__)


def save_model(model: PreTrainedModel, folder: str | Path, *, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write config and weights; `weights`: parameters by name where the model's own lie in pieces.

    Raises: ValueError where the model holds what no kind of module is registered for.
    """
    _save(model, Path(folder), structure_of(model), weights)


def save_training(model: PreTrainedModel, folder: str | Path, *, weights: Mapping[str, Tensor] | None = None) -> None:
    """As `save_model`, for `fill_` alone: it may hold modules that training puts in, of which the weights are kept."""
    try:
        structure = structure_of(model)
    except ValueError:
        structure = None
    _save(model, Path(folder), structure, weights)


def _save(
    model: PreTrainedModel, folder: Path, structure: Structure | None, weights: Mapping[str, Tensor] | None
) -> None:
    if structure is not None and structure.empty:
        model.save_pretrained(folder, state_dict=None if weights is None else dict(weights))
        return
    folder.mkdir(parents=True, exist_ok=True)
    config = deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], "float32"  # as `load_compressed` makes it
    config.save_pretrained(folder)
    tensors = {name: (weights or {}).get(name, tensor) for name, tensor in held_tensors(model).items()}
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(stored, folder / COMPRESSED, metadata={"format": "pt"})
    if structure is not None:
        (folder / STRUCTURE).write_text(structure.model_dump_json(indent=1) + "\n", encoding="utf-8")


def held_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """What is stored of a model: every tensor once, under its name in the encoder where it has one there."""
    base = f"{layout_of(model.config).base}."
    state: dict[str, Tensor] = model.state_dict(keep_vars=True)
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name in sorted(state, key=lambda name: not name.startswith(base)):
        if id(state[name]) not in seen:
            found[name] = state[name]
        seen.add(id(state[name]))
    return found


def is_compressed(folder: str | Path) -> bool:
    """Whether a folder holds a model that is not stock."""
    return (Path(folder) / STRUCTURE).is_file()


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """The weights in a folder that `save_model` or `save_training` wrote."""
    stock = Path(folder) / STOCK
    return load_file(stock if stock.is_file() else Path(folder) / COMPRESSED)


def absent(model: PreTrainedModel, given: Mapping[str, Tensor]) -> list[str]:
    """Names of a model's tensors that `given` does not fill; what is tied is filled by either name."""
    state: dict[str, Tensor] = model.state_dict(keep_vars=True)
    filled = {id(tensor) for name, tensor in state.items() if name in given}
    return [name for name, tensor in state.items() if id(tensor) not in filled]


def fill_(model: PreTrainedModel, weights: Mapping[str, Tensor], *, of: str | Path) -> None:
    """Copy all the weights of the model from what was read of a folder. Raises: ValueError where they are others."""
    tied = set(model.all_tied_weights_keys) | set(model.all_tied_weights_keys.values())
    missing = set(absent(model, weights)) - tied
    unexpected = model.load_state_dict(weights, strict=False).unexpected_keys
    if missing or unexpected:
        raise ValueError(f"checkpoint '{of}' does not belong to this model")


def load_compressed(auto_class: Any, folder: str, **settings: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """As `auto_class.from_pretrained` with its loading info, from a folder with a structure.

    Raises: InputError where the folder's files do not belong together.
    """
    settings = dict(settings)
    new_head = settings.pop("ignore_mismatched_sizes", False)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    config.update(settings)
    with torch.random.fork_rng(devices=[]):
        model: PreTrainedModel = auto_class.from_config(config, dtype=torch.float32)
        apply_structure_(model, read_structure(folder))
    weights, state = load_file(Path(folder) / COMPRESSED), model.state_dict()
    other = [name for name, tensor in weights.items() if name in state and tensor.shape != state[name].shape]
    if other and not new_head:
        raise InputError(f"model '{folder}': {', '.join(other[:3])} of another shape than structure.json says")
    weights = {name: tensor for name, tensor in weights.items() if name not in other}
    missing = [name for name in absent(model, weights) if name not in other]
    left = model.load_state_dict(weights, strict=False).unexpected_keys
    renewed = [(name, None, None) for name in other]
    return model, {"missing_keys": missing, "mismatched_keys": renewed, "unexpected_keys": left}


def read_structure(folder: str | Path) -> Structure:
    """What is not stock in the model of a folder. Raises: InputError where its file cannot be used."""
    if not is_compressed(folder):
        return Structure()
    try:
        return Structure.model_validate_json((Path(folder) / STRUCTURE).read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"model '{folder}': its {STRUCTURE} cannot be used: {first}; make the model again") from None
