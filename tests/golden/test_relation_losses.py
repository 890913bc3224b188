"""MiniLM's losses on relations, Patient KD's on first tokens, MobileBERT's on a layer: against NumPy float64 loops."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import affinage.losses.relation as relation
from affinage.distillation.objective import Objective
from affinage.errors import InputError
from affinage.losses.base import Shape, Shaped, distillation_losses
from affinage.recipe import Component
from affinage.signals import Batch, Signals
from tiny import tiny_model

Array = NDArray[np.float64]
ROWS, TOKENS = 2, 6
SEGMENTS = np.array([[1, 1, 2, 2, 2, 0], [1, 1, 1, 0, 0, 0]])
SMALL, BIG = Shape(layers=3, width=8, heads=2), Shape(layers=6, width=12, heads=2)
PARTS = ("queries", "keys", "values")
RELATIONS = {"query_relation_kl": "queries", "key_relation_kl": "keys", "value_relation_kl": "values"}


def drawn(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def signals(seed: int, shape: Shape) -> Signals:
    size = (shape.layers, ROWS, shape.heads, TOKENS, shape.width // shape.heads)
    vectors = {part: tuple(drawn(seed + i, *size)) for i, part in enumerate(PARTS)}
    return Signals(hidden_states=tuple(drawn(seed + 9, shape.layers + 1, ROWS, TOKENS, shape.width)), **vectors)  # type: ignore[arg-type]


def batch(*, packed: bool = True) -> Batch:
    segments = torch.tensor(SEGMENTS)
    return Batch(input_ids=torch.zeros_like(segments), mask=segments > 0, segments=segments if packed else None)


def texts(packed: bool) -> Array:
    return SEGMENTS if packed else (SEGMENTS > 0).astype(int)


def built(name: str, student: Shape, teacher: Shape, **params: Any) -> Any:
    loss = distillation_losses.build(name, params)
    assert isinstance(loss, Shaped)
    return loss.build(student, teacher)


def heads_of(found: Signals, part: str, layer: int, row: int, heads: int) -> Array:
    """(heads, T, D): the attention heads side by side, cut anew."""
    vectors = getattr(found, part)[layer][row].double().numpy()  # (A, T, D)
    joined = np.concatenate(list(vectors), axis=-1)
    return np.stack(np.split(joined, heads, axis=-1))


def by_hand(left: Callable[..., Array], right: Callable[..., Array], heads: int, packed: bool) -> float:
    """Of (who, row) -> (heads, T, D): sum over real tokens of the mean over heads of KL(teacher || student)."""
    total, text = 0.0, texts(packed)
    for row, token in np.argwhere(text > 0):
        seen = [j for j in range(TOKENS) if text[row, j] == text[row, token]]
        for head in range(heads):
            rows = []
            for who in ("teacher", "student"):
                a, b = left(who, row)[head], right(who, row)[head]
                powers = np.exp([a[token] @ b[j] / np.sqrt(a.shape[-1]) for j in seen])
                rows.append(powers / powers.sum())
            p, q = rows
            total += float(np.sum(p * np.log(p / q))) / heads
    return total


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("layer", "of_student"), [(None, None), (2, None), (3, 1), (None, 0)])
def test_attention_of_one_layer(layer: int | None, of_student: int | None, packed: bool) -> None:
    found = {"student": signals(1, SMALL), "teacher": signals(2, BIG)}
    at = {"student": -1 if of_student is None else of_student, "teacher": -1 if layer is None else layer}
    expected = by_hand(
        lambda who, row: heads_of(found[who], "queries", at[who], row, 2),
        lambda who, row: heads_of(found[who], "keys", at[who], row, 2),
        2,
        packed,
    )
    loss = built("attention_kl", SMALL, BIG, teacher_layer=layer, student_layer=of_student)
    result = loss(found["student"], found["teacher"], batch(packed=packed))
    assert result.total.item() == pytest.approx(expected, rel=1e-5)
    assert result.count == 8


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("heads", "student_heads", "layer"), [(None, 2, None), (4, 4, None), (4, 1, 3), (1, 2, 0)])
@pytest.mark.parametrize("name", RELATIONS)
def test_relations_with_any_number_of_heads(
    name: str, heads: int | None, student_heads: int, layer: int | None, packed: bool
) -> None:
    small = replace(SMALL, heads=student_heads)
    found = {"student": signals(1, small), "teacher": signals(2, BIG)}
    at = {"student": -1, "teacher": -1 if layer is None else layer}

    def vectors(who: str, row: int) -> Array:
        return heads_of(found[who], RELATIONS[name], at[who], row, heads or 2)

    expected = by_hand(vectors, vectors, heads or 2, packed)
    loss = built(name, small, BIG, heads=heads, teacher_layer=layer)
    result = loss(found["student"], found["teacher"], batch(packed=packed))
    assert result.total.item() == pytest.approx(expected, rel=1e-5)
    assert result.count == 8


@pytest.mark.parametrize("entries", [1, 8_000_000])
@pytest.mark.parametrize("name", ["attention_kl", *RELATIONS])
def test_the_gradient_is_that_of_the_plain_formula(name: str, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By autograd through torch's own KL divergence, row by row and all at once."""
    monkeypatch.setattr(relation, "CHUNK_ENTRIES", entries)
    student, teacher = signals(1, SMALL), signals(2, BIG)
    results = []
    for plain in (False, True):
        leaves = {part: getattr(student, part)[-1].clone().requires_grad_() for part in PARTS}
        ours = replace(student, **{part: (leaf,) for part, leaf in leaves.items()})  # type: ignore[arg-type]
        if plain:
            left, right = ("queries", "keys") if name == "attention_kl" else (RELATIONS[name],) * 2
            seen = torch.tensor(SEGMENTS[:, :, None] == SEGMENTS[:, None, :])[:, None]
            logs = [
                torch.log_softmax((a @ b.mT / a.shape[-1] ** 0.5).masked_fill(~seen, -1e4), -1)
                for a, b in ((leaves[left], leaves[right]), (getattr(teacher, left)[-1], getattr(teacher, right)[-1]))
            ]
            each = torch.nn.functional.kl_div(logs[0], logs[1], reduction="none", log_target=True).sum(-1).mean(1)
            total = each[torch.tensor(SEGMENTS > 0)].sum()
        else:
            total = built(name, SMALL, BIG)(ours, teacher, batch()).total
        gradients = torch.autograd.grad(3 * total, list(leaves.values()), allow_unused=True)
        results.append((total.detach(), *(torch.zeros(()) if g is None else g for g in gradients)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_under_bf16_autocast_the_relations_are_computed_in_float32() -> None:
    ours, theirs = (signals(seed, shape) for seed, shape in ((1, SMALL), (2, BIG)))
    loss = built("value_relation_kl", SMALL, BIG)
    with torch.autocast("cpu", torch.bfloat16):
        low = loss(ours, theirs, batch()).total
    assert low.dtype == torch.float32 and torch.equal(low, loss(ours, theirs, batch()).total)
    assert ours.values is not None
    half = ours.values[-1].bfloat16().requires_grad_()
    loss(replace(ours, values=(half,)), theirs, batch()).total.backward()
    assert half.grad is not None and half.grad.dtype == torch.bfloat16 and half.grad.isfinite().all()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("layers", "of_teacher"), [("skip", [2, 4]), ("last", [4, 5]), ((5, 0), [6, 1])])
def test_first_tokens_of_the_layers_before_the_last(layers: Any, of_teacher: list[int], packed: bool) -> None:
    teacher_shape = replace(BIG, width=8)
    student, teacher = signals(1, SMALL), signals(2, teacher_shape)
    assert student.hidden_states is not None and teacher.hidden_states is not None
    firsts = [(0, 0), (0, 2), (1, 0)] if packed else [(0, 0), (1, 0)]
    expected = 0.0
    for m, n in zip([1, 2], of_teacher, strict=True):
        for place in firsts:
            ours = student.hidden_states[m][place].double().numpy()
            theirs = teacher.hidden_states[n][place].double().numpy()
            expected += np.mean((ours / np.linalg.norm(ours) - theirs / np.linalg.norm(theirs)) ** 2) / 2
    found = built("patient_mse", SMALL, teacher_shape, layers=layers)(student, teacher, batch(packed=packed))
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert found.count == len(firsts)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("layer", [None, 0, 1])
def test_hidden_states_of_one_layer(layer: int | None, packed: bool) -> None:
    student, teacher = signals(1, SMALL), signals(2, SMALL)
    assert student.hidden_states is not None and teacher.hidden_states is not None
    at = 3 if layer is None else layer + 1  # 0: the embeddings
    expected = sum(
        np.mean(np.square((student.hidden_states[at] - teacher.hidden_states[at])[row, token].double().numpy()))
        for row, token in np.argwhere(SEGMENTS > 0)
    )
    found = built("feature_map_mse", SMALL, SMALL, layer=layer)(student, teacher, batch(packed=packed))
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert found.count == 8


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("part", ["normalized", "mean", "variance"])
def test_parts_of_the_feature_map(part: str, packed: bool) -> None:
    """As MobileBERT's code splits it: layer-normed states, their means, the absolute difference of their variances."""
    student, teacher = signals(1, SMALL), signals(2, SMALL)
    assert student.hidden_states is not None and teacher.hidden_states is not None
    expected = 0.0
    for row, token in np.argwhere(SEGMENTS > 0):
        x, y = (found.hidden_states[2][row, token].double().numpy() for found in (student, teacher))
        apart = {
            "normalized": np.mean(((x - x.mean()) / x.std() - (y - y.mean()) / y.std()) ** 2),
            "mean": (x.mean() - y.mean()) ** 2,
            "variance": abs(x.var() - y.var()),
        }
        expected += float(apart[part])
    found = built("feature_map_mse", SMALL, SMALL, layer=1, part=part)(student, teacher, batch(packed=packed))
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert found.count == 8


def test_the_papers_maps_for_six_of_twelve_layers() -> None:
    pairs = {
        name: distillation_losses.build("patient_mse", {"layers": name})._pairs(6, 12) for name in ("skip", "last")
    }  # type: ignore[attr-defined]
    assert pairs["skip"] == [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]
    assert pairs["last"] == [(1, 7), (2, 8), (3, 9), (4, 10), (5, 11)]


@pytest.mark.parametrize(
    ("name", "student", "params", "says"),
    [
        (
            "attention_kl",
            replace(SMALL, heads=4),
            {},
            "student has 4, the teacher 2; set .*_heads=2, or .*minilmv2",
        ),
        ("attention_kl", SMALL, {"teacher_layer": 6}, "teacher_layer 6 is not there; the teacher has layers 0 to 5"),
        ("key_relation_kl", SMALL, {"teacher_layer": 6}, "'key_relation_kl': teacher_layer 6 is not there"),
        ("attention_kl", SMALL, {"student_layer": 3}, "student_layer 3 is not there; the student has layers 0 to 2"),
        ("feature_map_mse", SMALL, {}, "the student has 3 of width 8, the teacher 6 of width 12"),
        ("feature_map_mse", BIG, {"layer": 6}, "layer 6 is not there; both have layers 0 to 5"),
        ("value_relation_kl", replace(SMALL, heads=4), {}, "divides both widths, 8 and 12"),
        ("query_relation_kl", SMALL, {"heads": 8}, "the teacher's width 12 is no multiple of 8"),
        ("query_relation_kl", SMALL, {"heads": 3}, "the student's width 8 is no multiple of 3"),
        ("patient_mse", SMALL, {}, "the student's width is 8, the teacher's 12"),
        ("patient_mse", Shape(4, 12, 2), {}, "6 layers are no multiple of the student's 4"),
        ("patient_mse", Shape(7, 12, 2), {"layers": "last"}, "no more than the teacher"),
        ("patient_mse", Shape(1, 12, 2), {}, "two layers at least"),
        (
            "patient_mse",
            Shape(3, 12, 2),
            {"layers": [1]},
            r"layers \[1\] should name 2 of .* layers, 0 to 5",
        ),
        ("patient_mse", Shape(3, 12, 2), {"layers": [1, 6]}, "should name 2"),
    ],
)
def test_shapes_that_cannot_be_compared_are_refused(name: str, student: Shape, params: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        built(name, student, BIG, **params)


def test_a_student_with_other_heads_learns_from_a_wider_teacher() -> None:
    """Through the models: signals of the right layers, gradient in the student alone, a loss that falls."""
    teacher = tiny_model("camembert")
    student = tiny_model("camembert", num_hidden_layers=2, hidden_size=8, num_attention_heads=1)
    parts = [Component(name=name, params={"heads": 4}) for name in RELATIONS]
    objective = Objective(student, parts, teacher=teacher)
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.01)
    ids = torch.randint(5, 20, (4, 12), generator=torch.Generator().manual_seed(0))
    segments = torch.tensor([[1] * 7 + [2] * 5] * 4)
    values = []
    for _ in range(8):
        value, totals = objective(ids, segments, torch.full_like(ids, -100))
        assert totals.shape == (3,) and (totals > 0).all()
        values.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert values[-1] < 0.9 * values[0]
    assert all(parameter.grad is None for parameter in teacher.parameters())
