"""Distillation with the teacher's states kept on disk: the same student for fewer forward passes."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import affinage.distillation.objective as objective
from affinage.errors import InputError
from affinage.workflows.distil import distil
from tiny_data import ON_TEXT

SETTINGS = {
    **{key: value for key, value in ON_TEXT.items() if key != "training.max_steps"},
    "training.epochs": "4",
    "masking.variants": "2",
}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry a forward pass: False where it is the student's in training."""
    seen: list[bool] = []
    plain = objective.forward_masked_lm

    def counted(model: Any, *given: Any, **more: Any) -> Any:
        if model.training or not torch.is_grad_enabled():
            seen.append(not model.training)
        return plain(model, *given, **more)

    monkeypatch.setattr(objective, "forward_masked_lm", counted)
    return seen


def run(teacher: Path, corpus: Path, out: Path, **overrides: str) -> dict[str, torch.Tensor]:
    distil(teacher, corpus=[corpus], out=out, overrides={**SETTINGS, **overrides}, quiet=True)
    assert {path.name for path in out.parent.iterdir()} == {"model"}  # the cache is gone with the working folder
    return load_file(out / "model.safetensors")


def test_the_same_student_for_half_the_teachers_passes(
    teacher: Path, corpus: Path, tmp_path: Path, passes: list[bool]
) -> None:
    found, teachers = {}, {}
    for cache in ("off", "float32", "float16"):
        passes.clear()
        found[cache] = run(teacher, corpus, tmp_path / cache / "model", teacher_cache=cache)
        steps, teachers[cache] = passes.count(False), passes.count(True)  # with both models' on held-out rows
    assert teachers["off"] - teachers["float32"] == steps / 2 > 0  # epochs 3 and 4 of 4
    assert teachers["float16"] == teachers["float32"]
    for name, plain in found["off"].items():
        torch.testing.assert_close(found["float32"][name], plain, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["float16"][name], plain, rtol=1e-2, atol=1e-3)


def test_the_likeliest_tokens_alone_are_kept_where_they_suffice(
    teacher: Path, corpus: Path, tmp_path: Path, passes: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    losses = "[{name: top_k_soft_kl, params: {top_k: 4, tokens: masked}, weight: 0.5}, {name: mlm}]"
    found, teachers = {}, {}
    with caplog.at_level(logging.INFO, "affinage"):
        for cache in ("off", "float32", "float16"):
            passes.clear()
            found[cache] = run(
                teacher, corpus, tmp_path / cache / "model", **{"teacher_cache": cache, "stages.0.losses": losses}
            )
            steps, teachers[cache] = passes.count(False), passes.count(True)
    assert "the teacher's 4 likeliest tokens are kept on disk" in caplog.text
    assert teachers["off"] - teachers["float32"] == steps / 2 > 0
    for name, plain in found["off"].items():
        torch.testing.assert_close(found["float32"][name], plain, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["float16"][name], plain, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"masking.variants": "null"}, "the masks are new in every epoch"),
        ({"stages.0.losses": "[{name: attention_score_mse}]"}, "the losses need keys, queries of the teacher"),
        ({"streaming": "true", "training.max_steps": "2"}, "a streamed corpus is read once"),
    ],
)
def test_where_it_cannot_serve_it_is_refused(
    teacher: Path, corpus: Path, tmp_path: Path, overrides: dict[str, str], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        run(teacher, corpus, tmp_path / "model", **{"teacher_cache": "float16", **overrides})
    assert not list(tmp_path.iterdir())


def test_a_cache_that_is_never_read_is_said(
    teacher: Path, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "affinage"):
        run(teacher, corpus, tmp_path / "out" / "model", **{"teacher_cache": "float32", "training.epochs": "1"})
    assert "the teacher cache will not be read: training passes 1.0 times over 2 different masks" in caplog.text
