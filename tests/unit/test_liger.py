"""Liger's kernels: the same values and gradients as torch's, asked for in the recipe, refused where they cannot run."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm, linear

from affinage.distillation import liger as module
from affinage.distillation.kernels import check_kernels
from affinage.distillation.liger import LigerMaskedLanguageModel, LigerNorm, fuse_norms_, with_liger
from affinage.distillation.objective import Objective
from affinage.errors import InputError, MissingExtra
from affinage.losses.labels import MaskedLanguageModel
from affinage.recipe import Component
from affinage.signals import IGNORED
from affinage.workflows.pretrain import pretrain
from tiny import tiny_model
from tiny_data import ON_TEXT, SHAPE, write_corpus

MLM = (Component(name="mlm"),)


def batch() -> dict[str, Tensor]:
    """Two packed rows; every third token is to be guessed."""
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 100, (2, 12), generator=random)
    segments = torch.tensor([[1] * 5 + [2] * 7, [1] * 9 + [0] * 3])
    labels = torch.where((torch.arange(12) % 3 == 1) & (segments > 0), ids, IGNORED)
    return {"input_ids": ids, "segments": segments, "labels": labels}


def gradients(objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
    loss, _ = objective(**batch(), scales=torch.tensor([0.25]))
    loss.backward()
    found = {name: p.grad.clone() for name, p in objective.student.named_parameters() if p.grad is not None}
    objective.zero_grad()
    return loss.detach(), found


def assert_as_torch() -> None:
    """The whole objective with the kernels as without: loss, gradients, names of weights."""
    student = tiny_model("camembert")
    plain, names = gradients(Objective(student, MLM).eval()), list(student.state_dict())
    fused = Objective(student, MLM).eval()
    fused.use_liger_()
    assert sum(isinstance(part, LigerNorm) for part in student.modules()) == 2 * 4 + 2
    assert list(student.state_dict()) == names
    loss, found = gradients(fused)
    torch.testing.assert_close(loss, plain[0], rtol=1e-5, atol=1e-6)
    assert found.keys() == plain[1].keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, plain[1][name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def in_the_interpreter() -> None:
    """Which (Triton 3.9) lacks two things that Liger's norms use: floats as tensors, and the GPU library's rsqrt."""
    import liger_kernel.ops.layer_norm as norms
    import numpy as np
    from triton import language as tl
    from triton.runtime import interpreter

    convert = interpreter._implicit_cvt

    def with_floats(given: Any) -> Any:
        if type(given) is not float:
            return convert(given)
        return tl.tensor(interpreter.TensorHandle(np.array([given], np.float32), tl.float32), tl.float32)

    interpreter._implicit_cvt, norms.rsqrt = with_floats, lambda x: tl.rsqrt(x)
    assert_as_torch()


class _Norm:
    """As the package's, by torch."""

    apply = staticmethod(lambda x, weight, bias, eps: layer_norm(x, x.shape[-1:], weight, bias, eps))


class _CrossEntropy:
    @staticmethod
    def apply(x: Tensor, weight: Tensor, target: Tensor, bias: Any, ce_weight: Any, ignored: int, *more: Any) -> Any:
        assert ce_weight is None and more == (0.0, 0.0, "sum")
        return cross_entropy(linear(x, weight, bias), target, ignore_index=ignored, reduction="sum"), None


def test_norms_and_mlm_are_handed_to_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = SimpleNamespace(LigerLayerNormFunction=_Norm, LigerFusedLinearCrossEntropyFunction=_CrossEntropy)
    monkeypatch.setattr(module, "liger_operations", lambda: stand_in)
    assert_as_torch()


@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is None, reason="liger-kernel is not installed")
def test_the_package_s_own_kernels_agree_with_torch() -> None:
    """In Triton's interpreter, which runs them on any processor; it must be chosen before Triton is imported."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_liger; test_liger.in_the_interpreter()"
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_mlm_beside_other_losses_on_logits_shares_theirs() -> None:
    both = Objective(tiny_model(), (*MLM, Component(name="soft_kl")), teacher=tiny_model())._losses
    assert with_liger(both) == both
    alone = Objective(tiny_model(), (*MLM, Component(name="cosine_distance")), teacher=tiny_model())._losses
    assert [type(loss) for loss in with_liger(alone)] == [LigerMaskedLanguageModel, type(alone[1])]
    assert with_liger((MaskedLanguageModel(),)) == (LigerMaskedLanguageModel(),)


def test_norms_of_other_kinds_are_left_alone() -> None:
    model = nn.ModuleList([nn.LayerNorm(4), nn.LayerNorm(4, bias=False), nn.LayerNorm(4, elementwise_affine=False)])
    fuse_norms_(model)
    assert [type(part) for part in model] == [LigerNorm, nn.LayerNorm, nn.LayerNorm]


def test_where_they_cannot_run_it_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    asked = {**ON_TEXT, **SHAPE, "training.kernels": "liger"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"training\.kernels liger: these kernels need a CUDA GPU, .*; use torch"):
        pretrain([corpus], out=tmp_path / "out", overrides=asked, quiet=True)
    assert not list(tmp_path.glob("out*"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "liger_kernel.ops", None)
    with pytest.raises(MissingExtra, match=r"needs the package 'liger-kernel'; .* 'affinage\[liger\]'"):
        check_kernels("liger")
    check_kernels("torch")
