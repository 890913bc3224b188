"""What calibration data says of linear maps and the embedding table: moments of inputs, and Fisher information."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources
from affinage.errors import InputError
from affinage.models.encoder import forward_masked_lm
from affinage.signals import IGNORED, Batch


@dataclass
class Moments:
    """Of a linear map's inputs x at the real tokens."""

    tokens: int
    total: Tensor
    """(in,) float64: sum of x"""
    squares: Tensor
    """(in, in) float64: sum of x x^T"""

    @property
    def mean(self) -> Tensor:
        """(in,)."""
        return self.total / self.tokens

    @property
    def second(self) -> Tensor:
        """(in, in): mean of x x^T."""
        return self.squares / self.tokens

    @property
    def covariance(self) -> Tensor:
        """(in, in): mean of (x - mean)(x - mean)^T."""
        return self.second - torch.outer(self.mean, self.mean)


def calibration(resources: Resources, method: str) -> Sequence[Batch]:
    """The calibration batches. Raises: InputError where there are none."""
    if not resources.calibration:
        raise InputError(f"{method} needs calibration data, texts of the task's training part: give --task and --data")
    return resources.calibration


@torch.no_grad()
def input_moments(
    model: PreTrainedModel, maps: Mapping[str, nn.Linear], batches: Sequence[Batch], *, method: str
) -> dict[str, Moments]:
    """Of each map's inputs, padding left out; `model` is in eval mode.

    Raises: InputError where there are fewer real tokens than the widest input has entries.
    """
    tokens, needed = sum(int(b.mask.sum()) for b in batches), max((m.in_features for m in maps.values()), default=0)
    if tokens < needed:
        raise InputError(
            f"{method}: the calibration data has {tokens} tokens, and the widest input {needed} entries; give at least "
            "as many tokens, better ten times as many"
        )
    found = {
        path: Moments(0, torch.zeros(m.in_features).double(), torch.zeros(m.in_features, m.in_features).double())
        for path, m in maps.items()
    }
    mask = torch.zeros(0)

    def hear(moments: Moments) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def note(module: nn.Module, args: tuple[Any, ...]) -> None:
            x: Tensor = args[0]
            x = x[mask] if x.shape[:-1] == mask.shape else x.reshape(-1, x.shape[-1])
            moments.tokens += len(x)
            moments.total += x.sum(0).double().cpu()
            moments.squares += (x.t() @ x).double().cpu()

        return note

    hooks = [module.register_forward_pre_hook(hear(found[path])) for path, module in maps.items()]
    try:
        for batch in batches:
            batch = batch.to(model.device)
            mask = batch.mask
            forward_masked_lm(model, batch, frozenset())
    finally:
        for hook in hooks:
            hook.remove()
    return found


def token_counts(batches: Sequence[Batch], vocabulary: int) -> Tensor:
    """(V,) float64: how often each token stands in the batches, plus one."""
    counts = torch.ones(vocabulary, dtype=torch.float64)
    for batch in batches:
        counts += torch.bincount(batch.input_ids[batch.mask].cpu(), minlength=vocabulary)
    return counts


def fisher(
    model: PreTrainedModel, weights: Mapping[str, Tensor], resources: Resources, *, method: str
) -> dict[str, Tensor]:
    """Name -> (rows, columns) float64: the diagonal of the empirical Fisher information of each weight.

    The mean over labelled examples of the squared gradient (Hsu et al. 2022, eq. 3); one backward pass each.
    """
    batches = calibration(resources, method)
    if resources.loss is None:
        raise InputError(f"{method} needs the gradients of a task's loss: give --task and --data")
    found = {name: torch.zeros(weight.shape, dtype=torch.float64) for name, weight in weights.items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    examples = 0
    for batch in batches:
        for row in rows_of(batch.to(model.device)):
            if not is_labelled(row):
                continue
            loss = resources.loss(model, row)
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            examples += 1
            for total, gradient in zip(found.values(), gradients, strict=True):
                if gradient is not None:
                    total += gradient.detach().double().square().cpu()
    return {name: total / max(1, examples) for name, total in found.items()}


def is_labelled(row: Batch) -> bool:
    """Whether there is anything in it that a loss can count: a short text may have no hidden word."""
    if row.labels is None:
        return True
    return bool((~row.labels.isnan() if row.labels.is_floating_point() else row.labels != IGNORED).any())


def rows_of(batch: Batch) -> Iterator[Batch]:
    """Each row of a batch as a batch of its own."""
    present = {f.name: getattr(batch, f.name) for f in fields(batch) if getattr(batch, f.name) is not None}
    for i in range(len(batch.input_ids)):
        yield replace(batch, **{name: value[i : i + 1] for name, value in present.items()})
