"""bfloat16 where the hardware gains by it, and where it is demanded of hardware that has it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from affinage.errors import InputError
from affinage.training import arguments
from affinage.training.arguments import computes_in_bf16

Machine = Callable[..., None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes this machine one without a GPU and with such a processor."""

    def make(*, vendor: str | None, amx: bool = False, avx512: bool = False) -> None:
        info = tmp_path / "cpuinfo"
        if vendor is not None:
            info.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: Nom\n" * 2, encoding="utf-8")
        monkeypatch.setattr(arguments, "CPUINFO", info)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)

    return make


@pytest.mark.parametrize(
    ("vendor", "amx", "avx512", "expected"),
    [
        ("GenuineIntel", True, True, True),
        ("GenuineIntel", True, False, True),
        ("GenuineIntel", False, True, False),
        ("AuthenticAMD", False, True, True),
        ("AuthenticAMD", False, False, False),
        ("GenuineIntel", False, False, False),
        (None, False, True, False),
        (None, True, True, True),
        (None, False, False, False),
    ],
)
def test_auto_is_bf16_where_the_cpu_gains_by_it(
    machine: Machine, vendor: str | None, amx: bool, avx512: bool, expected: bool
) -> None:
    machine(vendor=vendor, amx=amx, avx512=avx512)
    assert computes_in_bf16("auto") is expected
    assert computes_in_bf16("fp32") is False


@pytest.mark.parametrize(("amx", "avx512"), [(True, False), (False, True), (True, True)])
def test_bf16_may_be_demanded_where_the_cpu_has_it(machine: Machine, amx: bool, avx512: bool) -> None:
    machine(vendor="GenuineIntel", amx=amx, avx512=avx512)
    assert computes_in_bf16("bf16") is True


def test_bf16_where_there_is_none_is_refused(machine: Machine) -> None:
    machine(vendor="AuthenticAMD")
    with pytest.raises(InputError, match="does not compute in bfloat16; use auto or fp32"):
        computes_in_bf16("bf16")


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_is_asked_and_not_the_cpu_beside_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    machine(vendor="AuthenticAMD", amx=not native, avx512=not native)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert computes_in_bf16("auto") is native
