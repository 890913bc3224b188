"""Kernels that torch.compile makes: which runs use them, what happens where nothing compiles, and what they compute."""

from typing import Any

import pytest
import torch

from affinage.distillation import kernels
from affinage.distillation.kernels import check_kernels, use_kernels_
from affinage.errors import InputError
from affinage.losses import compiling
from affinage.losses.compiling import WORTH_ENTRIES, can_compile, compiled
from affinage.losses.soft_labels import soft_kl, soft_kl_in_one_pass
from affinage.recipe import Training


class Noted:
    """Stands for an objective: which kernels it was told to use."""

    def __init__(self) -> None:
        self.used: list[str] = []

    def compile_(self) -> None:
        self.used.append("compiled")

    def use_liger_(self) -> None:
        self.used.append("liger")


@pytest.mark.parametrize(
    ("asked", "entries", "compiles", "used"),
    [
        ("auto", WORTH_ENTRIES, True, ["compiled"]),
        ("auto", WORTH_ENTRIES / 2, True, []),
        ("auto", WORTH_ENTRIES, False, []),
        ("torch", WORTH_ENTRIES, True, []),
        ("compiled", 1, True, ["compiled"]),
        ("liger", 1, True, ["liger"]),
    ],
)
def test_a_long_run_on_a_cpu_compiles_where_it_can(
    asked: Any, entries: float, compiles: bool, used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "can_compile", lambda: compiles)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    objective: Any = Noted()
    use_kernels_(objective, Training(kernels=asked), tokens=entries / 1000, vocabulary=1000)
    assert objective.used == used


def test_nothing_compiles_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(function: Any) -> Any:
        def call(*args: Any) -> Any:
            raise RuntimeError("no working C++ compiler\nmore of it")

        return call

    monkeypatch.setattr(compiling, "compiled", fails)
    can_compile.cache_clear()
    assert not can_compile()
    with pytest.raises(InputError, match=r"training.kernels compiled: .* install a C\+\+ compiler"):
        check_kernels("compiled")
    can_compile.cache_clear()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of its own parts, when the compiler is imported
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiled_kernel_computes_the_formula(dtype: torch.dtype) -> None:
    if not can_compile():
        pytest.skip("no C++ compiler that torch finds")
    torch.manual_seed(0)
    for rows in (64, 128, 192):
        student, teacher = (3 * torch.randn(rows, 1000)).to(dtype), (3 * torch.randn(rows, 1000)).to(dtype)
        biases = torch.randn(1000), torch.randn(1000)
        leaf = (student.double() + biases[0]).requires_grad_()
        expected = soft_kl(leaf, teacher.double() + biases[1], 2.0)
        (gradient,) = torch.autograd.grad(0.3 * expected.sum(), leaf)
        found, slope = compiled(soft_kl_in_one_pass)(student, teacher, biases, 2.0, torch.tensor(0.3))
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)
        assert slope.dtype == dtype
        torch.testing.assert_close(slope.double(), gradient, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-6)
