"""Derivatives of gates against differences, importances against the papers' formulas in NumPy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from affinage.compression.base import Resources
from affinage.compression.pruning.cutting import linear_of
from affinage.compression.pruning.gates import gated, sensitivity
from affinage.compression.pruning.heads import importance
from affinage.models.layout import layers_of
from compressing import batches, loss, sharp_model

STEP = 1e-5


@pytest.mark.parametrize(("architecture", "head"), [("bert", "sequence"), ("distilbert", "mlm"), ("camembert", "mlm")])
def test_derivatives_are_those_of_single_examples(architecture: str, head: str) -> None:
    """(L(1 + h) - L(1 - h)) / 2h of one example alone, one gate moved, in float64; a head's by its output's columns."""
    model = sharp_model(architecture, head).double()
    alone = batches(architecture, rows=1)[:2]
    together = batches(architecture, rows=2)[:1]
    if head == "sequence":
        given = sensitivity(model, Resources(calibration=together, loss=loss), neurons=True)
    else:  # the mean over tokens is only that of examples where they are alone
        given = sensitivity(model, Resources(calibration=alone, loss=loss), neurons=True)
    for i, layer in ((0, 0), (1, 3)):
        for part, gates, gate in (("attention_output", given.heads, 1), ("output", given.neurons, 17)):
            weight = linear_of(model, layers_of(model)[layer], part).weight
            size = weight.shape[1] // gates[layer].shape[1]
            columns = slice(gate * size, (gate + 1) * size)
            whole, values = weight.detach().clone(), []
            for factor in (1 + STEP, 1 - STEP):
                with torch.no_grad():
                    weight[:, columns] = whole[:, columns] * factor
                    values.append(float(loss(model, alone[i])))
                    weight.copy_(whole)
            assert gates[layer][i, gate].item() == pytest.approx(
                (values[0] - values[1]) / (2 * STEP), rel=1e-4, abs=1e-9
            )


def test_importance_is_the_mean_of_absolute_derivatives_over_its_layers_norm() -> None:
    random = np.random.default_rng(0)
    given = [random.normal(size=(5, 3)), random.normal(size=(5, 2))]
    tensors: tuple[Tensor, ...] = tuple(torch.tensor(layer) for layer in given)
    for layer, plain, scaled in zip(
        given, importance(tensors, normalize=False), importance(tensors, normalize=True), strict=True
    ):
        expected = np.abs(layer).sum(0) / 5
        np.testing.assert_allclose(plain.numpy(), expected)
        np.testing.assert_allclose(scaled.numpy(), expected / np.sqrt((expected**2).sum()))


def test_gates_of_one_example_leave_the_others_alone() -> None:
    model, batch = sharp_model("bert"), batches("bert", rows=2)[0]
    shut = [torch.tensor([[0.0, 1.0], [1.0, 1.0]])] + [torch.ones(2, 2)] * 3
    with torch.no_grad():
        before = model(input_ids=batch.input_ids, attention_mask=batch.mask.long()).logits
        with gated(model, heads=shut):
            during = model(input_ids=batch.input_ids, attention_mask=batch.mask.long()).logits
        after = model(input_ids=batch.input_ids, attention_mask=batch.mask.long()).logits
    assert not torch.equal(before[0], during[0])
    assert torch.equal(before[1], during[1]) and torch.equal(before, after)
