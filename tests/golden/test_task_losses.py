"""The losses on a task's logits against loops in NumPy float64, and against the stock models' own on labels."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import affinage.losses  # noqa: F401  (registers every loss)
from affinage.errors import InputError
from affinage.losses.base import Shape, Shaped, distillation_losses
from affinage.signals import IGNORED, Batch, Signals
from tiny import tiny_model

Array = NDArray[np.float64]
ROWS, TOKENS, CLASSES = 3, 6, 4
REAL = [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]
TAGS = [[-100, 2, -100, 0, 3, -100], [-100, -100, 1, -100, -100, -100], [-100] * 6]
CONTEXT = [[0, 0, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]]


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def sigmoid(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))


def kl(p: Array, q: Array) -> float:
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True)))


def yes_or_no_kl(p: Array, q: Array) -> float:
    return float(np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))))


def yes_or_no_entropy(p: Array, q: Array) -> float:
    return -float(np.mean(p * np.log(q) + (1 - p) * np.log(1 - q)))


# name -> value of one row from the student's and the teacher's logits and the temperature
OF_A_ROW: dict[str, Callable[[Array, Array, float], float]] = {
    "class_soft_kl": lambda s, t, tau: tau**2 * kl(softmax(t / tau), softmax(s / tau)),
    "task_soft_kl": lambda s, t, tau: tau**2 * kl(softmax(t / tau), softmax(s / tau)),
    "class_soft_cross_entropy": lambda s, t, tau: -(tau**2) * float(softmax(t / tau) @ np.log(softmax(s / tau))),
    "class_soft_cross_entropy_as_released": lambda s, t, tau: -np.mean(softmax(t / tau) * np.log(softmax(s / tau))),
    "multi_label_soft_kl": lambda s, t, tau: tau**2 * yes_or_no_kl(sigmoid(t / tau), sigmoid(s / tau)),
    "multi_label_soft_cross_entropy": lambda s, t, tau: tau**2 * yes_or_no_entropy(sigmoid(t / tau), sigmoid(s / tau)),
}


def drawn(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch(**more: Any) -> Batch:
    mask = torch.tensor(REAL, dtype=torch.bool)
    return Batch(input_ids=torch.zeros(ROWS, TOKENS, dtype=torch.long), mask=mask, **more)


def both(*shape: int) -> tuple[Signals, Signals, Array, Array]:
    student, teacher = drawn(1, *shape), drawn(2, *shape)
    return Signals(logits=student), Signals(logits=teacher), student.double().numpy(), teacher.double().numpy()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("name", OF_A_ROW)
def test_of_whole_rows(name: str, temperature: float) -> None:
    student, teacher, s, t = both(ROWS, CLASSES)
    found = distillation_losses.build(name, {"temperature": temperature})(student, teacher, batch())
    assert found.total.item() == pytest.approx(
        sum(OF_A_ROW[name](s[i], t[i], temperature) for i in range(ROWS)), rel=2e-5
    )
    assert found.count == ROWS


def test_of_a_value() -> None:
    student, teacher, s, t = both(ROWS, 1)
    found = distillation_losses.build("regression_mse")(student, teacher, batch())
    assert found.mean.item() == pytest.approx(float(np.mean((s - t) ** 2)), rel=1e-5)
    labels = torch.tensor([0.25, torch.nan, -2.0])
    hard = distillation_losses.build("regression_hard_labels")(student, teacher, batch(labels=labels))
    assert hard.total.item() == pytest.approx((s[0, 0] - 0.25) ** 2 + (s[2, 0] + 2) ** 2, rel=1e-5)
    assert hard.count == 2


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_of_tags_at_words_or_where_there_are_none_at_every_token(temperature: float) -> None:
    student, teacher, s, t = both(ROWS, TOKENS, CLASSES)
    places = [(0, 1), (0, 3), (0, 4), (1, 2), (2, 0), (2, 1)]
    expected = sum(temperature**2 * kl(softmax(t[p] / temperature), softmax(s[p] / temperature)) for p in places)
    loss = distillation_losses.build("token_soft_kl", {"temperature": temperature})
    found = loss(student, teacher, batch(labels=torch.tensor(TAGS)))
    assert found.total.item() == pytest.approx(expected, rel=2e-5)
    assert found.count == len(places)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_of_spans_over_the_context_and_the_first_token(temperature: float) -> None:
    student, teacher, s, t = both(ROWS, TOKENS, 2)
    expected = 0.0
    for row in range(ROWS):
        among = [0, *(token for token in range(TOKENS) if CONTEXT[row][token])]
        for end in (0, 1):
            p, q = (softmax(logits[row, among, end] / temperature) for logits in (t, s))
            expected += temperature**2 * kl(p, q) / 2
    loss = distillation_losses.build("span_soft_kl", {"temperature": temperature})
    found = loss(student, teacher, batch(context=torch.tensor(CONTEXT, dtype=torch.bool)))
    assert found.total.item() == pytest.approx(expected, rel=2e-5)
    assert found.count == ROWS


def of(head: str, name: str = "task_labels", **params: Any) -> Any:
    loss = distillation_losses.build(name, params)
    assert isinstance(loss, Shaped)
    shape = Shape(layers=2, width=8, heads=2, head=head)  # type: ignore[arg-type]
    return loss.build(shape, shape)


def test_labels_of_every_kind() -> None:
    student, teacher, s, _ = both(ROWS, CLASSES)
    classes = of("classes")(student, teacher, batch(labels=torch.tensor([3, IGNORED, 1])))
    assert classes.total.item() == pytest.approx(-np.log(softmax(s[0])[3]) - np.log(softmax(s[2])[1]), rel=1e-5)
    wanted = np.array([[1.0, 0, 1, 0], [np.nan] * 4, [0, 0, 0, 1]])
    several = of("multi_label")(student, teacher, batch(labels=torch.from_numpy(wanted)))
    assert several.total.item() == pytest.approx(
        sum(yes_or_no_entropy(wanted[i], sigmoid(s[i])) for i in (0, 2)), rel=1e-5
    )
    assert classes.count == several.count == 2
    value = of("regression")(student, teacher, batch(labels=torch.tensor([1.0, torch.nan, 2.0])))
    assert value.total.item() == pytest.approx((s[0, 0] - 1) ** 2 + (s[2, 0] - 2) ** 2, rel=1e-5)

    student, teacher, s, _ = both(ROWS, TOKENS, CLASSES)
    tags = of("token")(student, teacher, batch(labels=torch.tensor(TAGS)))
    expected = -sum(np.log(softmax(s[i, j])[TAGS[i][j]]) for i, j in ((0, 1), (0, 3), (0, 4), (1, 2)))
    assert tags.total.item() == pytest.approx(expected, rel=1e-5)
    assert tags.count == 4

    student, teacher, s, _ = both(ROWS, TOKENS, 2)
    labels = torch.tensor([[2, 4], [IGNORED, IGNORED], [0, 0]])
    spans = of("span")(student, teacher, batch(labels=labels))
    expected = -sum(np.log(softmax(s[0, :, e])[labels[0, e]]) + np.log(softmax(s[2, :2, e])[0]) for e in (0, 1)) / 2
    assert spans.total.item() == pytest.approx(expected, rel=1e-5)
    assert spans.count == 2


@pytest.mark.parametrize(
    ("kind", "head", "labels", "settings"),
    [
        ("sequence", "classes", [1, 0, 1], {}),
        (
            "sequence",
            "multi_label",
            [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]],
            {"problem_type": "multi_label_classification"},
        ),
        ("sequence", "regression", [0.5, 2.0, -1.0], {"problem_type": "regression", "num_labels": 1}),
        ("token", "token", [[1, -100, 0, 0, 1, -100]] * 3, {}),
        ("span", "span", [[1, 2], [0, 0], [3, 5]], {}),
    ],
)
def test_labels_weigh_as_in_the_stock_model(kind: str, head: str, labels: Any, settings: Any) -> None:
    """Where no row has padding, which the stock loss of spans would count."""
    model, wanted = tiny_model("camembert", kind, **settings), torch.tensor(labels)
    ids = torch.randint(5, 20, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    given = {"labels": wanted}
    if kind == "span":
        given = {"start_positions": wanted[:, 0], "end_positions": wanted[:, 1]}
    with torch.no_grad():
        output = model(input_ids=ids, **given)
    logits = torch.stack([output.start_logits, output.end_logits], -1) if kind == "span" else output.logits
    whole = Batch(input_ids=ids, mask=torch.ones_like(ids, dtype=torch.bool), labels=wanted)
    found = of(head)(Signals(logits=logits), Signals(), whole)
    assert found.mean.item() == pytest.approx(output.loss.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("head", "plain"),
    [
        ("classes", "class_soft_kl"),
        ("multi_label", "multi_label_soft_kl"),
        ("regression", "regression_mse"),
        ("token", "token_soft_kl"),
        ("span", "span_soft_kl"),
    ],
)
def test_the_soft_labels_of_a_kind(head: str, plain: str) -> None:
    params = {} if head == "regression" else {"temperature": 3.0}
    assert of(head, "task_soft_kl", temperature=3.0) == distillation_losses.build(plain, params)


@pytest.mark.parametrize("name", ["task_soft_kl", "task_labels"])
def test_a_model_without_a_tasks_head_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"loss '{name}' is of a task, and the student has no head of one"):
        of(None, name)  # type: ignore[arg-type]
