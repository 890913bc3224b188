"""A linear map, or an embedding table, as a small core tensor and a factor for each of its sides."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from affinage.models.modules.base import Compressed, Settings, multiply_adds, register_module
from affinage.models.modules.low_rank import dense_of, empty, table_settings


@register_module("tucker-linear")
class TuckerLinear(Compressed):
    """(…, in) -> (…, out): W as a tensor (o1, o2, i1, i2) is the core (r1, r2, r3, r4) times a factor (side, r) each.

    `shape` is (o1, o2, i1, i2). The matrix is made whenever it is used, so it is smaller, not faster.
    """

    def __init__(self, shape: Sequence[int], ranks: Sequence[int], bias: bool = True) -> None:
        super().__init__()
        self.shape, self.ranks = tuple(shape), tuple(ranks)
        self.out_features, self.in_features = prod(self.shape[:2]), prod(self.shape[2:])
        self.core = nn.Parameter(torch.empty(self.ranks))
        self.sides = nn.ParameterList(
            [nn.Parameter(torch.empty(side, rank)) for side, rank in zip(self.shape, self.ranks, strict=True)]
        )
        self.bias = nn.Parameter(torch.empty(self.out_features)) if bias else None

    def settings(self) -> Settings:
        return {"shape": self.shape, "ranks": self.ranks, "bias": self.bias is not None}

    def dense(self) -> Tensor:
        whole = torch.einsum("abcd,ma,nb,pc,qd->mnpq", self.core, *self.sides)
        return whole.reshape(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return linear(x, self.dense(), self.bias)


@register_module("tucker-embedding")
class TuckerEmbedding(Compressed):
    """(…) ids -> (…, H): table[ids] times the core (r, r1, r2), of which each side of H = h1 · h2 has a factor.

    The table is (V, r); `shape` is (h1, h2), `ranks` (r, r1, r2).
    """

    def __init__(
        self, num_embeddings: int, shape: Sequence[int], ranks: Sequence[int], padding_idx: int | None = None
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, prod(shape), padding_idx
        self.shape, self.ranks = tuple(shape), tuple(ranks)
        self.table = empty(nn.Embedding, num_embeddings, self.ranks[0], padding_idx=padding_idx)
        self.core = nn.Parameter(torch.empty(self.ranks))
        self.sides = nn.ParameterList(
            [nn.Parameter(torch.empty(side, rank)) for side, rank in zip(self.shape, self.ranks[1:], strict=True)]
        )

    def settings(self) -> Settings:
        sizes = table_settings(self)
        del sizes["embedding_dim"]
        return sizes | {"shape": self.shape, "ranks": self.ranks}

    def dense(self) -> Tensor:
        return dense_of(self.table) @ self._up()

    def multiply_adds(self) -> int:
        return self.ranks[0] * self.embedding_dim + multiply_adds(self.table)

    def forward(self, ids: Tensor) -> Tensor:
        """(…) int64 -> (…, H)."""
        out: Tensor = self.table(ids) @ self._up()
        return out

    def _up(self) -> Tensor:
        """(r, H)."""
        return torch.einsum("abc,mb,nc->amn", self.core, *self.sides).flatten(1)
