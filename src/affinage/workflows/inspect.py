"""`affinage inspect`: the shape, parameters and cost of a model, from its config and structure."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModel, PreTrainedModel

from affinage.errors import InputError
from affinage.evaluation.footprint import Footprint, footprint
from affinage.models.checkpoint import max_length, read_config
from affinage.models.layout import layout_of
from affinage.models.shipped import located
from affinage.models.storage import read_structure
from affinage.models.structure import apply_structure_


def inspect(model: str | Path, *, length: int = 128) -> Footprint:
    """The footprint of a model folder or hub name; no weights are read.

    Raises: InputError where there is no such model, its architecture is unknown, or `length` exceeds what it takes.
    """
    config = read_config(model)
    layout_of(config)
    if not 1 <= length <= max_length(config):
        raise InputError(f"length {length}: this model takes 1 to {max_length(config)} tokens")
    name = next(iter(config.architectures or ()), None)
    known: Any = getattr(transformers, name, None) if name else None
    stock = isinstance(known, type) and issubclass(known, PreTrainedModel) and known.config_class is type(config)
    structure = read_structure(located(model))
    try:
        with torch.device("meta"):
            network = known(config) if stock and "forward" in vars(known) else AutoModel.from_config(config)
    except (ValueError, TypeError, AttributeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"model '{model}': its config.json describes no model: {first}; fetch it again") from None
    with torch.device("meta"):
        apply_structure_(network, structure)
    return footprint(network, length=length, folder=located(model))
