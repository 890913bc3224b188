"""Attention heads that the loss can do without, by the gradient of their gates."""

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.pruning.choice import Share, best_of_all, removed
from affinage.compression.pruning.cutting import check_cuttable, cut_heads_, head_counts
from affinage.compression.pruning.gates import sensitivity
from affinage.errors import InputError

UNEVEN = Traits("pruning", takes=frozenset({"dense", "uneven"}), leaves=frozenset({"uneven"}))
EVEN = Traits("pruning", takes=frozenset({"dense", "uneven"}), leaves=frozenset({"dense"}))
"""of methods that cut all layers alike, or leave layers out: what was even stays so"""


@compressors.register("prune-heads", source="Michel et al. 2019, arXiv:1905.10650, equation 2")
@dataclass(frozen=True)
class PruneHeads:
    """Takes out the attention heads whose gates the loss feels least, over all layers; one of each layer stays.

    A head's importance is E_x |dL(x) / dgate|, divided by the l2 norm of its layer's importances (`normalize`). Layers
    keep unlike numbers of heads, so stock transformers cannot load the result.
    """

    keep: Share = 0.5
    """share of all heads that stays"""
    normalize: bool = True

    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "gradients"})
    traits: ClassVar[Traits] = UNEVEN

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        check_cuttable(model, "prune-heads", heads=True)
        count = kept_of_all(head_counts(model), self.keep, "heads")
        pruned: PreTrainedModel = deepcopy(model).eval()
        scores = importance(sensitivity(pruned, resources).heads, normalize=self.normalize)
        cut_heads_(pruned, best_of_all(scores, count))
        return pruned


def importance(gradients: tuple[Tensor, ...], *, normalize: bool) -> list[Tensor]:
    """L x (A,): E_n |g_n| of per-example derivatives L x (N, A), each layer's divided by their l2 norm."""
    means = [layer.abs().mean(0) for layer in gradients]
    return [mean / mean.norm().clamp(min=1e-30) for mean in means] if normalize else means


def kept_of_all(counts: list[int], keep: float, what: str) -> int:
    """How many of all layers' heads or neurons stay. Raises: InputError where a layer would keep none."""
    total = sum(counts)
    kept = total - removed(total, 1 - keep)
    if kept < len(counts):
        raise InputError(
            f"keep={keep} of {total} {what} leaves {kept}; each of the {len(counts)} layers keeps at least one: the "
            f"least is keep={len(counts) / total:.3g}"
        )
    return kept
