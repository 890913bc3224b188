"""The mean of what several teachers say, against NumPy float64."""

import numpy as np
import pytest
import torch

from affinage.distillation.several_teachers import mean_logits
from affinage.signals import Batch

ROWS, TOKENS = 2, 5
BATCH = Batch(
    input_ids=torch.zeros(ROWS, TOKENS, dtype=torch.long),
    mask=torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool),
    context=torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]], dtype=torch.bool),
)


def drawn(*shape: int) -> list[torch.Tensor]:
    return [3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3)]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize(("head", "shape"), [("classes", (ROWS, 4)), ("token", (ROWS, TOKENS, 4))])
def test_of_classes_and_tags(head: str, shape: tuple[int, ...]) -> None:
    given = drawn(*shape)
    expected = np.mean([softmax(one.double().numpy()) for one in given], axis=0)
    found = mean_logits(given, head, BATCH)  # type: ignore[arg-type]
    np.testing.assert_allclose(softmax(found.double().numpy()), expected, rtol=1e-5)


def test_of_each_label_by_itself_and_of_values() -> None:
    given = drawn(ROWS, 4)
    expected = np.mean([1 / (1 + np.exp(-one.double().numpy())) for one in given], axis=0)
    np.testing.assert_allclose(
        torch.sigmoid(mean_logits(given, "multi_label", BATCH)).double().numpy(), expected, rtol=1e-5
    )
    torch.testing.assert_close(mean_logits(given, "regression", BATCH), sum(given) / 3)


def test_of_spans_over_the_context_and_the_first_token() -> None:
    given = drawn(ROWS, TOKENS, 2)
    found = mean_logits(given, "span", BATCH)
    for row, among in enumerate(([0, 2, 3, 4], [0, 1, 2])):
        for end in (0, 1):
            expected = np.mean([softmax(one[row, among, end].double().numpy()) for one in given], axis=0)
            np.testing.assert_allclose(softmax(found[row, among, end].double().numpy()), expected, rtol=1e-5)


def test_one_teacher_is_left_as_it_is() -> None:
    (one, *_) = drawn(ROWS, 4)
    assert mean_logits([one], "classes", BATCH) is one
