"""Which kernels a stage trains with (`training.kernels`)."""

import torch

from affinage.distillation.liger import liger_operations
from affinage.distillation.objective import Objective
from affinage.errors import InputError
from affinage.losses.compiling import WORTH_ENTRIES, can_compile
from affinage.recipe import Training


def check_kernels(kernels: str) -> None:
    """Raises: InputError where Liger's are asked for without a GPU, or compiled ones where nothing compiles;
    MissingExtra where Liger's are not installed.
    """
    if kernels == "liger":
        if not torch.cuda.is_available():
            raise InputError("training.kernels liger: these kernels need a CUDA GPU, and there is none; use torch")
        liger_operations()
    if kernels == "compiled" and not can_compile():
        raise InputError("training.kernels compiled: nothing compiles here; install a C++ compiler (g++), or use torch")


def use_kernels_(objective: Objective, training: Training, *, tokens: float, vocabulary: int) -> None:
    """Let `objective` compute by the kernels of a recipe, in a run over `tokens` tokens in all.

    What `auto` means depends on the machine and on the whole length of the run alone, so that a run that is taken up
    again goes on as it began.
    """
    if training.kernels == "liger":
        objective.use_liger_()
    worth = tokens * vocabulary >= WORTH_ENTRIES and not torch.accelerator.is_available()
    if training.kernels == "compiled" or (training.kernels == "auto" and worth and can_compile()):
        objective.compile_()
