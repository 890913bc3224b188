"""What a machine is said to compute: published peaks of named hardware, or a person's own figures."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from affinage.errors import InputError, unknown
from affinage.training.quantities import count_of, pairs_of

MAX_DEVICES = 100_000


@dataclass(frozen=True)
class Machine:
    """One or more equal devices. Peaks are of dense matrix products, one device, without structured sparsity."""

    name: str
    fp32_flops: float
    """operations a second of plain float32 products (torch's default: no TF32)"""
    bf16_flops: float | None
    """operations a second in bfloat16; None: it has none, and affinage computes in float32 there"""
    memory_bytes: float
    """of one device"""
    source: str
    devices: int = 1
    fused_dropout: bool = True
    """whether attention with dropout is one kernel, which keeps no probabilities"""

    def bf16(self, precision: str) -> bool:
        """Whether a recipe's `training.precision` computes in bfloat16 here.

        Raises: InputError where it demands bf16 and there is none.
        """
        if precision == "bf16" and self.bf16_flops is None:
            raise InputError(f"training.precision bf16: {self.name} does not compute in bfloat16; use auto or fp32")
        return precision != "fp32" and self.bf16_flops is not None

    def peak(self, precision: str) -> float:
        """Operations a second of all its devices, in the precision that the recipe computes in here."""
        one = self.bf16_flops if self.bf16(precision) else self.fp32_flops
        assert one is not None
        return one * self.devices


def _nvidia(name: str, fp32: float, bf16: float | None, gigabytes: float, source: str) -> Machine:
    return Machine(name, fp32 * 1e12, None if bf16 is None else bf16 * 1e12, gigabytes * 1e9, source)


MACHINES: Mapping[str, Machine] = {
    "cpu-2-cores": Machine(
        "2 Zen 4 cores",
        215e9,
        430e9,
        24 * 2**30,
        "one look at matrix products, 2026-11, no report; measure yours with --dry-run",
        fused_dropout=False,
    ),
    "t4": _nvidia("NVIDIA T4", 8.1, None, 16, "NVIDIA T4 data sheet; its 65 TFLOPS are float16, not used here"),
    "titan-rtx": _nvidia(
        "NVIDIA TITAN RTX", 16.3, None, 24, "NVIDIA Turing white paper; its 130 TFLOPS are float16, not used here"
    ),
    "v100": _nvidia(
        "NVIDIA V100 SXM2", 15.7, None, 32, "NVIDIA V100 data sheet; its 125 TFLOPS are float16, not used here"
    ),
    "a100": _nvidia("NVIDIA A100 SXM 80 GB", 19.5, 312, 80, "NVIDIA A100 data sheet"),
    "h100": _nvidia("NVIDIA H100 SXM", 67, 989, 80, "NVIDIA H100 data sheet, dense"),
    "h200": _nvidia("NVIDIA H200 SXM", 67, 989, 141, "NVIDIA H200 data sheet, dense"),
}


def machine(given: str) -> Machine:
    """`a100`, `8xh100`, or `flops=300e12,memory=80e9,devices=8`.

    `flops` is the peak in the precision used, `memory` in bytes (units as 80GB are understood).

    Raises: InputError for an unknown name, a key or a figure that cannot be.
    """
    text = given.strip().lower()
    if "=" in text:
        return _own(given)
    found = re.fullmatch(r"(?:(\d+)\s*x\s*)?(.+)", text)
    devices, name = (int(found[1] or 1), found[2]) if found else (1, text)
    if name not in MACHINES:
        raise InputError(f"{unknown('hardware', given, MACHINES)}; or give --hardware flops=…,memory=…")
    return _several(MACHINES[name], devices, given)


def published(device_name: str) -> Machine | None:
    """The machine behind a driver's name for it, as `NVIDIA A100-SXM4-80GB`; None where the table has none.

    Variants of another peak (PCIe cards) are not taken for it.
    """
    name = device_name.lower()
    if "pcie" in name or "nvl" in name:
        return None
    marks = {"t4": "tesla t4", "titan-rtx": "titan rtx", "v100": "v100-sxm2", "a100": "a100-sxm4-80gb"}
    marks |= {"h100": "h100 80gb hbm3", "h200": "h200"}
    return next((MACHINES[key] for key, mark in marks.items() if mark in name), None)


def _own(given: str) -> Machine:
    values = pairs_of(given, option="--hardware", known=("flops", "memory", "devices"))
    if missing := [key for key in ("flops", "memory") if key not in values]:
        raise InputError(f"--hardware '{given}': missing: {', '.join(missing)}")
    flops, memory = (count_of(values[key], name=f"--hardware {key}") for key in ("flops", "memory"))
    own = Machine("own figures", flops, flops, memory, "given")
    return _several(own, round(count_of(values.get("devices", "1"), name="--hardware devices")), given)


def _several(one: Machine, devices: int, given: str) -> Machine:
    if not 1 <= devices <= MAX_DEVICES:
        raise InputError(f"--hardware '{given}': expected 1 to {MAX_DEVICES:,} devices")
    return replace(one, devices=devices, name=one.name if devices == 1 else f"{devices} × {one.name}")
