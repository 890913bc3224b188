"""The processes of this run: one, or those that `accelerate launch` or `torchrun` started."""

import torch
from accelerate import PartialState


def processes() -> PartialState:
    """The state they share. Without an accelerator they must be told to meet on the CPU, or each would run alone."""
    return PartialState(cpu=not torch.accelerator.is_available())
