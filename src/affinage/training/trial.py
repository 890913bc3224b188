"""How fast this machine trains: the time of real optimizer steps, and of a bare matrix product to compare with."""

import time
from statistics import median
from typing import Any

import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from affinage.training.hardware import published
from affinage.training.overhead import Overhead
from affinage.training.processes import processes

STEPS = 10
"""Optimizer steps of a trial."""
WARM_UP = 2
"""The first of them, which are not counted: memory is laid out, kernels are chosen."""
LEAST = 5
"""Steps taken at least, however long they are."""
LONG_SECONDS = 120.0
"""A trial of one process that has taken so long ends with the step in hand."""
_CPU_SIZE, _GPU_SIZE, _PRODUCTS = 1536, 8192, 5


class StepClock(Overhead):
    """Seconds of each optimizer step, from the end of the one before: its data, masks and log included."""

    def __init__(self) -> None:
        super().__init__()
        self._stamps: list[float] = []

    @property
    def seconds(self) -> list[float]:
        """Of the steps after the warm-up."""
        pairs = zip(self._stamps[:-1], self._stamps[1:], strict=True)
        return [end - begin for begin, end in pairs][WARM_UP - 1 :]

    @property
    def median_seconds(self) -> float:
        """Of one step."""
        return median(self.seconds)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        _wait()
        super().on_step_end(args, state, control, **kwargs)
        self._stamps.append(time.perf_counter())
        # Several processes would have to agree on when to stop.
        spent = self._stamps[-1] - self._stamps[0]
        if args.world_size == 1 and state.global_step >= LEAST and spent > LONG_SECONDS:
            control.should_training_stop = True


def peak_flops(*, bf16: bool) -> tuple[float, str]:
    """Operations a second that all devices of this run could reach, and whence: published, or measured now.

    Measured: the best of a few products of square matrices, every process at the same time.
    """
    count = processes().num_processes
    known = published(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    if known is not None:
        one = known.bf16_flops if bf16 else known.fp32_flops
        if one is not None:
            return one * count, f"published peak of {known.name}"
    kind = torch.bfloat16 if bf16 else torch.float32
    size = _GPU_SIZE if torch.cuda.is_available() else _CPU_SIZE
    left, right = (torch.ones(size, size, dtype=kind, device=processes().device) for _ in range(2))
    out = torch.empty_like(left)
    best = float("inf")
    for _ in range(_PRODUCTS):
        _wait()
        began = time.perf_counter()
        torch.mm(left, right, out=out)
        _wait()
        best = min(best, time.perf_counter() - began)
    return (
        2 * size**3 / best * count,
        f"best {'bf16' if bf16 else 'fp32'} matrix product of {size} x {size}, measured now",
    )


def _wait() -> None:
    """Until the device has done what it was given; a CPU has."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
