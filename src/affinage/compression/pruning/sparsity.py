"""Which single weights, or blocks of them, go; and the modules that store what stays."""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.compression.base import Traits
from affinage.compression.pruning.choice import removed
from affinage.errors import InputError
from affinage.models.modules.sparse import SparseLinear, sparse_embedding, sparse_linear
from affinage.models.replacing import linears, replace_embedding_, replace_module_, word_embedding_path

log = logging.getLogger(__name__)

SPARSE = Traits("pruning", takes=frozenset({"dense", "uneven"}), leaves=frozenset({"sparse"}))

Gone = Mapping[str, Tensor]
"""path -> (out / r, in / c) bool: the blocks (r, c) of its weight that become zero"""


def matrices(model: PreTrainedModel, *, embeddings: bool) -> dict[str, nn.Linear | nn.Embedding]:
    """The encoder's linear maps, and where asked the word embeddings, by path; biases and norms are never pruned.

    Raises: InputError where one is no plain module any more.
    """
    paths = [*linears(model), *([word_embedding_path(model)] if embeddings else [])]
    found: dict[str, nn.Linear | nn.Embedding] = {}
    for path in paths:
        module = model.get_submodule(path)
        if type(module) not in (nn.Linear, nn.Embedding):
            raise InputError(f"'{path}' is a {type(module).__name__}: make weights sparse before packing them")
        assert isinstance(module, nn.Linear | nn.Embedding)
        found[path] = module
    return found


def smallest(scores: Tensor, count: int) -> Tensor:
    """Bool of the shape of `scores`: the `count` smallest; of equal ones the first."""
    flat = scores.flatten()
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    border = flat.kthvalue(count).values
    gone = flat < border
    equal = (flat == border).nonzero()[:, 0]
    gone[equal[: count - int(gone.sum())]] = True
    return gone.view(scores.shape)


def smallest_of_all(scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """For each matrix the entries among the ⌊sparsity * n⌋ smallest of all n."""
    joined = torch.cat([part.flatten() for part in scores.values()])
    gone = smallest(joined, removed(len(joined), sparsity))
    parts = torch.split(gone, [part.numel() for part in scores.values()])
    return {path: part.view(scores[path].shape) for path, part in zip(scores, parts, strict=True)}


def smallest_of_each(scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """The ⌊sparsity * n⌋ smallest of each matrix."""
    return {path: smallest(part, removed(part.numel(), sparsity)) for path, part in scores.items()}


def made_sparse(model: PreTrainedModel, gone: Gone) -> PreTrainedModel:
    """A copy of the model in eval mode without these weights: what stays is stored, with a mask of bits."""
    made: PreTrainedModel = deepcopy(model).eval()
    for path, out in gone.items():
        module = made.get_submodule(path)
        if isinstance(module, nn.Embedding):
            replace_embedding_(made, sparse_embedding(module, ~out))
        else:
            assert isinstance(module, nn.Linear)
            replace_module_(made, path, sparse_linear(module, ~out))
    return made


def with_zeros(model: PreTrainedModel) -> PreTrainedModel:
    """A copy in which sparse maps are plain ones whose weights are parameters; the model itself where it has none."""
    if not any(isinstance(module, SparseLinear) for module in model.modules()):
        return model
    made = deepcopy(model)
    for path, module in list(made.named_modules()):
        if isinstance(module, SparseLinear):
            plain = nn.Linear(module.in_features, module.out_features, bias=False)
            plain.weight, plain.bias = nn.Parameter(module.dense().detach()), module.bias
            replace_module_(made, path, plain)
    return made


def filled_by_blocks(
    modules: Mapping[str, nn.Linear | nn.Embedding], rows: int, columns: int, what: Sequence[str]
) -> dict[str, nn.Linear | nn.Embedding]:
    """Those whose weight blocks (rows, columns) fill; an earlier cut may leave others, which stay as they are.

    Raises: InputError where there is none; `what`: the parameters that say how large blocks are.
    """
    found = {}
    problem = ""
    for path, module in modules.items():
        wrong = [
            f"{name}={by} does not divide the {size} of '{path}' {tuple(module.weight.shape)}"
            for size, by, name in zip(module.weight.shape, (rows, columns), what, strict=True)
            if size % by
        ]
        problem = problem or "".join(wrong[:1])
        if not wrong:
            found[path] = module
    if not found:
        raise InputError(problem)
    if len(found) < len(modules):
        log.info("%d of %d matrices stay whole: %s", len(modules) - len(found), len(modules), problem)
    return found
