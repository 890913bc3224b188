"""TinyBERT's losses between layers against loops in NumPy float64, and the trained map that comes with one of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import affinage.losses  # noqa: F401  (registers every loss)
from affinage.distillation.objective import Objective
from affinage.errors import InputError
from affinage.losses.base import Shape, Shaped, distillation_losses
from affinage.recipe import Component
from affinage.signals import Batch, Signals
from tiny import tiny_model

ROWS, TOKENS, HEADS = 2, 6, 2
SEGMENTS = [[1, 1, 2, 2, 2, 0], [1, 1, 1, 0, 0, 0]]
SMALL, BIG = Shape(layers=2, width=4, heads=HEADS), Shape(layers=4, width=8, heads=HEADS)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def signals(seed: int, shape: Shape, *, width: int | None = None) -> Signals:
    size = (shape.layers, ROWS, HEADS, TOKENS, shape.width // HEADS)
    hidden = drawn(seed, shape.layers + 1, ROWS, TOKENS, width or shape.width)
    return Signals(
        hidden_states=tuple(hidden), queries=tuple(drawn(seed + 1, *size)), keys=tuple(drawn(seed + 2, *size))
    )


def batch(*, packed: bool = True) -> Batch:
    segments = torch.tensor(SEGMENTS)
    return Batch(input_ids=torch.zeros_like(segments), mask=segments > 0, segments=segments if packed else None)


def built(name: str, student: Shape, teacher: Shape, **params: Any) -> Any:
    loss = distillation_losses.build(name, params)
    assert isinstance(loss, Shaped)
    return loss.build(student, teacher)


def in_numpy(tensors: tuple[Tensor, ...] | None) -> list[Any]:
    assert tensors is not None
    return [t.detach().double().numpy() for t in tensors]


def test_hidden_states_of_every_other_layer_of_the_teacher() -> None:
    student, teacher = signals(1, SMALL, width=BIG.width), signals(2, BIG)
    ours, theirs = in_numpy(student.hidden_states), in_numpy(teacher.hidden_states)
    expected = sum(
        np.mean((ours[m][row, token] - theirs[2 * m][row, token]) ** 2)
        for m in range(3)  # 0: the embeddings
        for row, token in np.argwhere(np.array(SEGMENTS) > 0)
    )
    found = built("hidden_mse", replace(SMALL, width=BIG.width), BIG, projection=False)(student, teacher, batch())
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert found.count == 8


def test_hidden_states_through_one_map_for_all_layers() -> None:
    student, teacher = signals(1, SMALL), signals(2, BIG)
    loss = built("hidden_mse", SMALL, BIG)
    assert isinstance(loss, nn.Module)
    weight, bias = loss.parameters()
    assert weight.shape == (8, 4) and not bias.any()
    with torch.no_grad():
        bias.copy_(drawn(5, 8))
    w, b = in_numpy((weight, bias))
    ours, theirs = in_numpy(student.hidden_states), in_numpy(teacher.hidden_states)
    expected = sum(
        np.mean((w @ ours[m][row, token] + b - theirs[2 * m][row, token]) ** 2)
        for m in range(3)
        for row, token in np.argwhere(np.array(SEGMENTS) > 0)
    )
    found = loss(student, teacher, batch())
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    found.total.backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0


@pytest.mark.parametrize("packed", [True, False])
def test_attention_scores_of_the_last_layer_of_each_block(packed: bool) -> None:
    student, teacher = signals(1, SMALL), signals(2, BIG)
    q, k, tq, tk = (in_numpy(t) for t in (student.queries, student.keys, teacher.queries, teacher.keys))
    texts = np.array(SEGMENTS) if packed else (np.array(SEGMENTS) > 0).astype(int)
    expected = 0.0
    for m in range(2):
        n = 2 * m + 1  # of 0 to 3
        for row, i in np.argwhere(texts > 0):
            seen = [j for j in range(TOKENS) if texts[row, j] == texts[row, i]]
            squares = [
                (q[m][row, a, i] @ k[m][row, a, j] / np.sqrt(2) - tq[n][row, a, i] @ tk[n][row, a, j] / np.sqrt(4)) ** 2
                for a in range(HEADS)
                for j in seen
            ]
            expected += np.mean(squares)
    found = built("attention_score_mse", SMALL, BIG)(student, teacher, batch(packed=packed))
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert found.count == 8


@pytest.mark.parametrize(
    ("name", "student", "params", "says"),
    [
        ("hidden_mse", replace(SMALL, layers=3), {}, r"4 layers are no multiple .* 3; .* one of 1, 2, 4"),
        ("attention_score_mse", replace(SMALL, layers=3), {}, "no multiple"),
        ("attention_score_mse", replace(SMALL, heads=4), {}, "the student has 4, the teacher 2"),
        ("hidden_mse", SMALL, {"projection": False}, "the student's width is 4, the teacher's 8"),
    ],
)
def test_shapes_that_cannot_be_compared_are_refused(name: str, student: Shape, params: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        built(name, student, BIG, **params)


def test_the_objective_owns_the_map_and_trains_it() -> None:
    teacher, student = tiny_model("camembert"), tiny_model("camembert", num_hidden_layers=2)
    parts = (Component(name="hidden_mse"), Component(name="attention_score_mse"))
    objective = Objective(student, parts, teacher=teacher).eval()
    assert list(objective.loss_parameters()) == ["hidden_mse.map.weight", "hidden_mse.map.bias"]
    assert set(map(id, objective.loss_parameters().values())) <= set(map(id, objective.parameters()))
    ids = torch.randint(5, 20, (2, 8), generator=torch.Generator().manual_seed(0))
    loss, totals = objective(ids, torch.ones_like(ids), torch.full_like(ids, -100))
    loss.backward()
    assert totals.shape == (2,) and (totals > 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.loss_parameters().values())
    assert all(p.grad is None for p in teacher.parameters())
