"""The quick dropout is dropout: as many zeros, the same mean, the same gradient as its mask says, the same model."""

import pytest
import torch
from torch import nn

from affinage.models.dropout import QuickDropout, quicken_dropout_
from tiny import tiny_model

COUNT = 400_003  # no multiple of four


@pytest.mark.parametrize("p", [0.1, 0.37, 0.5])
def test_each_element_is_dropped_with_its_probability_and_the_rest_scaled(p: float) -> None:
    torch.manual_seed(0)
    x = torch.full((COUNT,), 2.0, requires_grad=True)
    y = QuickDropout(p).train()(x)
    zero = y == 0
    sigma = (p * (1 - p) / COUNT) ** 0.5
    assert abs(zero.double().mean().item() - p) < 4 * sigma
    torch.testing.assert_close(y[~zero], torch.full_like(y[~zero], 2 / (1 - p)), rtol=1e-4, atol=0)
    # Neighbours, which come from the same draw, are independent of one another.
    for apart in (1, 2, 3):
        both = (zero[:-apart] & zero[apart:]).double().mean().item()
        assert abs(both - p**2) < 5 * (p**2 * (1 - p**2) / COUNT) ** 0.5
    upstream = torch.randn(COUNT)
    y.backward(upstream)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, upstream * y.detach() / 2)


def test_all_or_nothing() -> None:
    x = torch.randn(3, 5, requires_grad=True)
    assert torch.equal(QuickDropout(0.0).train()(x), x)
    assert torch.equal(QuickDropout(0.4).eval()(x), x)
    assert not QuickDropout(1.0).train()(x).any()


def test_the_seed_decides() -> None:
    x, found = torch.ones(1000), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(QuickDropout(0.1).train()(x))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_bfloat16_stays_bfloat16() -> None:
    assert QuickDropout(0.1).train()(torch.ones(8, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("architecture", ["camembert", "distilbert"])
def test_a_model_keeps_its_weights_and_every_dropout_is_replaced(architecture: str) -> None:
    model = tiny_model(architecture).train()
    before = list(model.state_dict())
    count = sum(type(part) is nn.Dropout for part in model.modules())
    quicken_dropout_(model)
    parts = [part for part in model.modules() if isinstance(part, nn.Dropout)]
    assert count and len(parts) == count and all(type(part) is QuickDropout and part.training for part in parts)
    assert list(model.state_dict()) == before
