"""The processes of this run: one, or those that `accelerate launch` or `torchrun` started."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from affinage.errors import AffinageError, InputError
from affinage.training.sharding import settle_variables

T = TypeVar("T")


def processes() -> PartialState:
    """The state they share. Without an accelerator they must be told to meet on the CPU, or each would run alone."""
    settle_variables()
    return PartialState(cpu=not torch.accelerator.is_available())


def agreed(find: Callable[[], T]) -> T:
    """What the first process finds, told to all of them; its InputError is everyone's."""
    state = processes()
    if state.num_processes == 1:
        return find()
    found: list[Any] = [None, None]
    if state.is_main_process:
        try:
            found[0] = find()
        except AffinageError as error:
            found[1] = str(error)
    broadcast_object_list(found)
    if found[1] is not None:
        raise InputError(found[1])
    value: T = found[0]
    return value
