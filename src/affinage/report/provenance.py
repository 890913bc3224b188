"""Where a figure comes from: versions, hardware, command, data."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from affinage import __version__
from affinage.report.report import Hardware, Provenance

CPUINFO = Path("/proc/cpuinfo")


def provenance(
    *, command: str, seed: int | None, recipe_sha256: str | None, data: Mapping[str, str], seconds: float
) -> Provenance:
    """The conditions of a run that ends now. `data`: file -> sha256."""
    return Provenance(
        affinage=__version__,
        python=platform.python_version(),
        torch=_version("torch"),
        transformers=_version("transformers"),
        tokenizers=_version("tokenizers"),
        numpy=_version("numpy"),
        hardware=Hardware(
            cpu=cpu_name(), cores=_cores(), memory_gib=round(_memory_gib(), 1), accelerator=accelerator()
        ),
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        threads=_threads(),
        processes=_processes(),
        recipe_sha256=recipe_sha256,
        data=dict(data),
        seconds=round(seconds, 1),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _threads() -> int | None:
    """None where nothing was computed with torch: it is not imported for this."""
    torch: Any = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def _processes() -> int:
    """As many as `accelerate launch` or `torchrun` started."""
    torch: Any = sys.modules.get("torch")
    together = torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()
    return int(torch.distributed.get_world_size()) if together else 1


def cpu_name() -> str:
    """Model name of the processor, or its architecture where the kernel does not say."""
    try:
        for line in CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gib() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        return 0.0


def accelerator() -> str | None:
    """Name of the GPU, asked of its driver's tool so that torch need not be imported."""
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    names = answer.stdout.strip().splitlines()
    return ", ".join(names) if answer.returncode == 0 and names else None
