"""How many threads torch computes with: no more than the cores that this process may really use."""

import logging
import math
import os
from pathlib import Path

import torch

log = logging.getLogger(__name__)

CGROUPS = Path("/sys/fs/cgroup")
_VARIABLE = "OMP_NUM_THREADS"


def settle_threads() -> int:
    """Lower torch's threads to this process's share of the cores; what `OMP_NUM_THREADS` says is left alone.

    torch takes every core it sees, also in a container that may use but a few of them, and in every process of a
    machine: threads that wait for each other make each step many times slower.
    """
    together = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    share = max(1, math.floor(usable_cores() / together))
    if not os.environ.get(_VARIABLE):
        torch.set_num_threads(min(torch.get_num_threads(), share))
    elif torch.get_num_threads() == 1 < min(share, together) and not torch.accelerator.is_available():
        # torchrun sets it where nobody has; its warning does not say that it costs speed.
        log.info("one thread a process; this machine has cores for more: %s=%d", _VARIABLE, share)
    return torch.get_num_threads()


def usable_cores() -> float:
    """Cores that this process may run on, or as much of their time as its container is given."""
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(seen, _quota())


def _quota() -> float:
    """Cores' worth of time that the control group (version 2, or 1) allows; infinite where it sets no limit."""
    try:
        given, period = (CGROUPS / "cpu.max").read_text(encoding="utf-8").split()
        return math.inf if given == "max" else int(given) / int(period)
    except (OSError, ValueError):
        pass
    try:
        given, period = ((CGROUPS / "cpu" / f"cpu.cfs_{name}_us").read_text("utf-8") for name in ("quota", "period"))
        return int(given) / int(period) if int(given) > 0 else math.inf
    except (OSError, ValueError):
        return math.inf
