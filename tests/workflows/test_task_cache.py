"""Teachers' logits kept on disk: the same student for fewer passes, in other runs too; no other teacher's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import affinage.distillation.task_objective as task_objective
from affinage.errors import InputError
from affinage.workflows.distil_task import distil_task
from tiny import save_tiny
from tiny_data import STEPS, write_task
from tiny_tasks import tuned_teacher

SETTINGS = {**{k: v for k, v in STEPS.items() if k != "training.max_steps"}, "training.epochs": "3"}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry a forward pass of a teacher."""
    seen: list[bool] = []
    plain = task_objective.forward_task

    def counted(model: Any, *given: Any) -> Any:
        if not torch.is_grad_enabled():
            seen.append(True)
        return plain(model, *given)

    monkeypatch.setattr(task_objective, "forward_task", counted)
    return seen


def run(
    teacher: Path, task: str, data: Path, out: Path, *, overrides: Any = None, **more: Any
) -> dict[str, torch.Tensor]:
    settings = {**SETTINGS, **(overrides or {})}
    distil_task(teacher, task=task, data=data, out=out, recipe="task", overrides=settings, quiet=True, **more)
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("task", ["sentiment", "ner", "qa"])
def test_the_same_student_and_the_second_run_asks_nothing(tmp_path: Path, passes: list[bool], task: str) -> None:
    data, teacher, kept = write_task(tmp_path / "data", task), tuned_teacher(tmp_path, task), tmp_path / "kept"
    online = run(teacher, task, data, tmp_path / "online")
    every = len(passes)
    assert every % 3 == 0 and every > 0
    passes.clear()
    cached = run(teacher, task, data, tmp_path / "cached", teacher_cache=kept)
    assert every / 3 <= len(passes) < every
    passes.clear()
    again = run(teacher, task, data, tmp_path / "again", teacher_cache=kept)
    assert not passes
    for name, plain in online.items():
        torch.testing.assert_close(cached[name], plain, rtol=1e-4, atol=1e-5)
        assert torch.equal(again[name], cached[name]) or torch.allclose(again[name], cached[name], atol=1e-6)


def test_two_teachers_and_a_cache_of_the_run_alone(tmp_path: Path) -> None:
    data = write_task(tmp_path / "data", "sentiment")
    first, second = (
        tuned_teacher(tmp_path, "sentiment"),
        tuned_teacher(tmp_path / "2", "sentiment", num_hidden_layers=3),
    )
    both: dict[str, Any] = {"more_teachers": [second]}
    online = run(first, "sentiment", data, tmp_path / "online", **both)
    cached = run(first, "sentiment", data, tmp_path / "cached", **both, overrides={"teacher_cache": "float32"})
    alone = run(first, "sentiment", data, tmp_path / "alone")
    for name, plain in online.items():
        torch.testing.assert_close(cached[name], plain, rtol=1e-4, atol=1e-5)
    assert any(not torch.equal(alone[name], plain) for name, plain in online.items())
    assert not list(tmp_path.glob("**/states.bin"))


def test_the_cache_of_another_teacher_or_of_other_rows_is_refused(tmp_path: Path) -> None:
    data, kept = write_task(tmp_path / "data", "sentiment"), tmp_path / "kept"
    first, second = (
        tuned_teacher(tmp_path, "sentiment"),
        tuned_teacher(tmp_path / "2", "sentiment", num_hidden_layers=3),
    )
    run(first, "sentiment", data, tmp_path / "out", teacher_cache=kept)
    with pytest.raises(InputError, match=r"was made of another teacher; delete it, or choose another folder"):
        run(second, "sentiment", data, tmp_path / "other", teacher_cache=kept)
    (tmp_path / "more.txt").write_text("Une phrase de plus.\n")
    with pytest.raises(InputError, match="made of another unlabelled"):
        run(first, "sentiment", data, tmp_path / "other", teacher_cache=kept, unlabelled=tmp_path / "more.txt")
    assert not list(tmp_path.glob("other*"))


def test_a_cache_that_is_there_before_the_teacher_is_tuned_is_refused(tmp_path: Path) -> None:
    """What it holds is another teacher's: said before this one is tuned, not after."""
    data, kept = write_task(tmp_path / "data", "sentiment"), tmp_path / "kept"
    run(tuned_teacher(tmp_path, "sentiment"), "sentiment", data, tmp_path / "out", teacher_cache=kept)
    plain = save_tiny(tmp_path / "plain", "camembert", "mlm")
    with pytest.raises(InputError, match="was made of another teacher; delete it, or choose another folder"):
        run(plain, "sentiment", data, tmp_path / "other", teacher_cache=kept)
    assert not list(tmp_path.glob("other*"))


def test_a_cache_that_cannot_serve_is_refused(tmp_path: Path) -> None:
    data, teacher = write_task(tmp_path / "data", "sentiment"), tuned_teacher(tmp_path, "sentiment")
    with pytest.raises(InputError, match="keeps the teacher's logits alone, and the losses need hidden_states"):
        run(
            teacher,
            "sentiment",
            data,
            tmp_path / "out",
            overrides={"teacher_cache": "float16", "losses": "[{name: hidden_mse}]"},
        )
