"""FSDP: weights that lie in pieces on several GPUs while they are trained, and are put together to be saved."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def settle_variables() -> None:
    """Of what a launcher may ask of FSDP, the one way that is supported; called before the processes meet.

    The second version of FSDP; whole weights in checkpoints; every process reads the models by itself.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("true", "1"):
        os.environ |= {
            "FSDP_VERSION": "2",
            "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
            "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
        }


def compute_as_ddp_(accelerator: Accelerator) -> None:
    """Leave bfloat16 to autocast: FSDP's own policy would round the gradients, the losses and their scales to it."""
    if (plugin := getattr(accelerator.state, "fsdp_plugin", None)) is not None:
        plugin.mixed_precision_policy = None


def gathered(whole: Mapping[str, Tensor], model: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`parameters` of a part of `model` under their own names, out of `whole`, the state dictionary of all of it."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {name: whole[names[id(parameter)]] for name, parameter in parameters.items()}


def in_pieces(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole weights, cut as those of the same names in `own` are: not at all, or as FSDP cuts them."""
    return {
        name: distribute_tensor(weight, piece.device_mesh, piece.placements, src_data_rank=None)
        if isinstance(piece := own.get(name), DTensor)
        else weight
        for name, weight in weights.items()
    }


@torch.no_grad()
def make_whole_(model: nn.Module) -> None:
    """Put plain parameters in the place of those that FSDP keeps in pieces, on every process; nothing else changes.

    It cannot be trained on afterwards.
    """
    parts: list[Any] = list(model.modules())
    for part in parts:
        if isinstance(part, FSDPModule):
            part.reshard()
    whole: dict[int, nn.Parameter] = {}  # tied parameters stay tied
    for part in parts:
        for name, parameter in part._parameters.items():
            if isinstance(parameter, DTensor):
                if id(parameter) not in whole:
                    whole[id(parameter)] = nn.Parameter(parameter.full_tensor())
                part._parameters[name] = whole[id(parameter)]
