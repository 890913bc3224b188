"""How much the loss minds a change of each weight: squared gradients, and the largest eigenvalue of the Hessian."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from affinage.compression.quantization.calibration import enough
from affinage.errors import InputError
from affinage.signals import Batch

Loss = Callable[[PreTrainedModel, Batch], Tensor]


def gradient_sizes(
    model: PreTrainedModel, weights: Sequence[Tensor], calibration: Sequence[Batch] | None, loss: Loss | None
) -> list[Tensor]:
    """For each weight √(mean over batches of its squared gradient): the root of Adam's second moment, by which Hou et
    al. 2017 (section 3.2) approximate the diagonal of the Hessian. Where a weight has no gradient: 0.

    Raises: InputError without calibration texts or loss.
    """
    if not weights:
        return []
    batches, measure = enough(calibration), _given(loss)
    sums = [torch.zeros_like(weight) for weight in weights]
    with _differentiable(model, weights):
        for batch in batches:
            for total, found in zip(sums, _gradients(model, weights, batch, measure), strict=True):
                total += found.detach().square()
    return [(total / len(batches)).sqrt() for total in sums]


def top_eigenvalues(
    model: PreTrainedModel,
    weights: Sequence[Tensor],
    batches: Sequence[Batch],
    loss: Loss | None,
    *,
    seed: int,
    steps: int = 10,
    close: float = 0.05,
) -> Tensor:
    """(batches, weights): the largest eigenvalue, by size, of the Hessian of a batch's loss in each weight alone.

    Power iteration on Hessian-vector products (Shen et al. 2020, Q-BERT, Algorithm 1), for all weights at once: blocks
    off the diagonal are left out, as each product is taken with one weight's vector at a time. It ends after `steps`,
    or where a step changes the value by less than a share `close` of it.

    Raises: InputError without loss.
    """
    measure = _given(loss)
    found = torch.zeros(len(batches), len(weights))
    generator = torch.Generator().manual_seed(seed)
    # The kernels that are quick in one differentiation have no second.
    with _differentiable(model, weights), sdpa_kernel(SDPBackend.MATH):
        for i, batch in enumerate(batches):
            gradients = _gradients(model, weights, batch, measure, create_graph=True)
            for j, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
                vector = torch.randn(weight.shape, generator=generator).to(weight)
                if gradient.requires_grad:
                    found[i, j] = _power_iteration(gradient, weight, vector, steps, close)
    return found


def _power_iteration(gradient: Tensor, weight: Tensor, vector: Tensor, steps: int, close: float) -> float:
    value = 0.0
    for _ in range(steps):
        vector = vector / vector.norm().clamp(min=1e-30)
        (product,) = torch.autograd.grad(gradient, weight, vector, retain_graph=True, materialize_grads=True)
        before, value = value, float((product * vector).sum())
        vector = product
        if abs(value - before) <= close * abs(value):
            break
    return value


def _gradients(
    model: PreTrainedModel, weights: Sequence[Tensor], batch: Batch, loss: Loss, *, create_graph: bool = False
) -> Sequence[Tensor]:
    value = loss(model, batch.to(weights[0].device))
    return torch.autograd.grad(value, weights, create_graph=create_graph, allow_unused=True, materialize_grads=True)


def _given(loss: Loss | None) -> Loss:
    if loss is None:
        raise InputError(
            "a loss is needed to take gradients of: give the labelled training part of a task, or a corpus"
        )
    return loss


@contextmanager
def _differentiable(model: nn.Module, weights: Sequence[Tensor]) -> Iterator[None]:
    """The model in eval mode and the weights with gradients; afterwards as they were."""
    training, wanted = model.training, [weight.requires_grad for weight in weights]
    model.eval()
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        model.train(training)
        for weight, before in zip(weights, wanted, strict=True):
            weight.requires_grad_(before)
