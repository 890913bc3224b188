"""Linear maps and tables with many zeros: one bit for an entry, or a block of entries, and what is not zero."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from affinage.models.modules.base import Compressed, Settings, register_module


class _Sparse(Compressed):
    """A matrix (R, C) cut into blocks (r, c): `values` (kept, r * c), rows of kept blocks in reading order, and `mask`,
    uint8, a bit for each block in reading order, the lowest of a byte first, 1 where it is kept.

    The matrix is made anew where values train, else once and kept until they change.
    """

    def __init__(self, rows: int, columns: int, kept: int, block: tuple[int, int]) -> None:
        nn.Module.__init__(self)
        self.rows, self.columns, self.block = rows, columns, (block[0], block[1])
        blocks = rows * columns // (block[0] * block[1])
        self.values = nn.Parameter(torch.zeros(kept, block[0] * block[1]))
        self.mask: Tensor
        self.register_buffer("mask", torch.zeros(-(-blocks // 8), dtype=torch.uint8))
        self._made: dict[str, tuple[object, Tensor]] = {}

    @property
    def weight(self) -> Tensor:
        """(R, C), as the plain module has it."""
        if torch.is_grad_enabled() and self.values.requires_grad:
            return self.dense()
        with torch.inference_mode(False), torch.no_grad():
            return self._once("matrix", self.dense, self.values, self.mask)

    def dense(self) -> Tensor:
        (r, c), width = self.block, self.values.shape[1]
        down, across = self.rows // r, self.columns // c
        places = self._once("places", self._places, self.mask)
        empty = self.values.new_zeros(down * across, width)
        blocks = empty.index_copy(0, places, self.values).view(down, across, r, c)
        return blocks.transpose(1, 2).reshape(self.rows, self.columns).float()

    def numbers(self) -> int:
        """What is not zero, and the bias; the mask is bits and no numbers."""
        bias = getattr(self, "bias", None)
        return self.values.numel() + (bias.numel() if isinstance(bias, Tensor) else 0)

    def _places(self) -> Tensor:
        """(kept,) which blocks are kept."""
        bits = (self.mask[:, None] >> torch.arange(8, dtype=torch.uint8, device=self.mask.device)) & 1
        return bits.flatten().nonzero()[:, 0]

    def _once(self, name: str, make: Callable[[], Tensor], *of: Tensor) -> Tensor:
        state = [(tensor.data_ptr(), tensor._version, tensor.device, tensor.dtype) for tensor in of]
        known = self._made.get(name)
        if known is None or known[0] != state:
            known = self._made[name] = (state, make())
        return known[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}


@register_module("sparse-linear")
class SparseLinear(_Sparse, nn.Linear):
    """(…, in) -> (…, out): x W^T + b, W (out, in) with zeros that are not stored. Smaller, not faster.

    It is an `nn.Linear` whose weight follows from its values: what reads weights, a quantizer say, finds them.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool, kept: int, block: tuple[int, int] = (1, 1)
    ) -> None:
        _Sparse.__init__(self, out_features, in_features, kept, block)
        self.in_features, self.out_features = in_features, out_features
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_features)) if bias else None)

    def settings(self) -> Settings:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias is not None,
            "kept": len(self.values),
            "block": self.block,
        }

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return linear(x, self.weight, self.bias)


@register_module("sparse-embedding")
class SparseEmbedding(_Sparse):
    """A table (V, H) with zeros that are not stored. Smaller, not faster."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None, kept: int) -> None:
        super().__init__(num_embeddings, embedding_dim, kept, (1, 1))
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx

    def settings(self) -> Settings:
        return {
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "padding_idx": self.padding_idx,
            "kept": len(self.values),
        }

    def forward(self, ids: Tensor) -> Tensor:
        """(…) int -> (…, H)."""
        return embedding(ids, self.weight, self.padding_idx)


@torch.no_grad()
def sparse_linear(plain: nn.Linear, kept: Tensor) -> SparseLinear:
    """The same map with the blocks that `kept` (out / r, in / c) bool names, r and c following from its shape."""
    block = (plain.out_features // kept.shape[0], plain.in_features // kept.shape[1])
    made = SparseLinear(plain.in_features, plain.out_features, plain.bias is not None, int(kept.sum()), block)
    _fill_(made, plain.weight, kept)
    if plain.bias is not None:
        made.bias.copy_(plain.bias)
    return made


@torch.no_grad()
def sparse_embedding(plain: nn.Embedding, kept: Tensor) -> SparseEmbedding:
    """The same table with the entries that `kept` (V, H) bool names."""
    made = SparseEmbedding(plain.num_embeddings, plain.embedding_dim, plain.padding_idx, int(kept.sum()))
    _fill_(made, plain.weight, kept)
    return made


def _fill_(made: _Sparse, weight: Tensor, kept: Tensor) -> None:
    (down, across), (r, c) = kept.shape, made.block
    blocks = weight.view(down, r, across, c).transpose(1, 2).reshape(down * across, r * c)
    flat = kept.flatten()
    made.values.copy_(blocks[flat])
    bits = torch.zeros(made.mask.numel() * 8, dtype=torch.uint8)
    bits[: flat.numel()] = flat.to(torch.uint8)
    made.mask.copy_((bits.view(-1, 8) << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8))
    made.to(weight.device)
