"""A linear map, or an embedding table, as a sum of Kronecker products."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from affinage.models.modules.base import Compressed, Settings, multiply_adds, register_module
from affinage.models.modules.low_rank import dense_of, empty, table_settings


@register_module("kronecker-linear")
class KroneckerLinear(Compressed):
    """(…, in) -> (…, out): W = sum over terms of left ⊗ right, plus the bias.

    `left` is (terms, out / block, in / block), `right` (terms, block, block). W is never made: with x as
    (in / block, block) each term is left · x · right^T, and one product with all left factors side by side adds them.
    """

    def __init__(self, in_features: int, out_features: int, block: int, terms: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features, self.block, self.terms = in_features, out_features, block, terms
        self.left = nn.Parameter(torch.empty(terms, out_features // block, in_features // block))
        self.right = nn.Parameter(torch.empty(terms, block, block))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def settings(self) -> Settings:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "block": self.block,
            "terms": self.terms,
            "bias": self.bias is not None,
        }

    def dense(self) -> Tensor:
        return torch.einsum("rij,rpq->ipjq", self.left, self.right).reshape(self.out_features, self.in_features)

    def multiply_adds(self) -> int:
        """A product with each `right`, one with each `left`."""
        return self.terms * self.in_features * (self.block + self.out_features // self.block)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        cut = x.reshape(-1, self.in_features // self.block, self.block)
        turned = torch.einsum("nib,rpb->npri", cut, self.right).flatten(2)  # (N, block, terms · in / block)
        out = linear(turned, self.left.transpose(0, 1).flatten(1)).transpose(1, 2)  # (N, out / block, block)
        out = out.reshape(*x.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias


@register_module("kronecker-embedding")
class KroneckerEmbedding(Compressed):
    """(…) ids -> (…, H): a row is the sum over terms of table[id, term] ⊗ right[term].

    The table is (V, terms · H / block), `right` (terms, block).
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, block: int, terms: int, padding_idx: int | None = None
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.block, self.terms = block, terms
        self.table = empty(nn.Embedding, num_embeddings, terms * embedding_dim // block, padding_idx=padding_idx)
        self.right = nn.Parameter(torch.empty(terms, block))

    def settings(self) -> Settings:
        return table_settings(self) | {"block": self.block, "terms": self.terms}

    def dense(self) -> Tensor:
        return self._spread(dense_of(self.table))

    def multiply_adds(self) -> int:
        return self.terms * self.embedding_dim + multiply_adds(self.table)

    def forward(self, ids: Tensor) -> Tensor:
        """(…) int64 -> (…, H)."""
        return self._spread(self.table(ids))

    def _spread(self, rows: Tensor) -> Tensor:
        left = rows.reshape(*rows.shape[:-1], self.terms, -1)
        return torch.einsum("...rj,rq->...jq", left, self.right).reshape(*rows.shape[:-1], self.embedding_dim)
