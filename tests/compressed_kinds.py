"""Kinds of modules that stand for compressed ones in tests of what holds for all kinds."""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from affinage.models.modules.base import Compressed, Settings


class Halves(Compressed):
    """A table stored as two halves of its columns: nothing is lost, so outputs must stay."""

    kind = "test-halves"

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.left = nn.Parameter(torch.zeros(num_embeddings, embedding_dim // 2))
        self.right = nn.Parameter(torch.zeros(num_embeddings, embedding_dim - embedding_dim // 2))

    def settings(self) -> Settings:
        return {
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "padding_idx": self.padding_idx,
        }

    def dense(self) -> Tensor:
        return torch.cat([self.left, self.right], 1)

    def forward(self, ids: Tensor) -> Tensor:
        return embedding(ids, self.dense())


def halves(table: nn.Embedding) -> Halves:
    """The same table."""
    made = Halves(table.num_embeddings, table.embedding_dim, table.padding_idx)
    left, right = table.weight.detach().split((made.left.shape[1], made.right.shape[1]), 1)
    made.left.data, made.right.data = left.clone(), right.clone()
    return made


class TwoMaps(Compressed):
    """A linear map as one after another, each a module that may itself be replaced."""

    kind = "test-two-maps"

    def __init__(self, in_features: int, rank: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.rank, self.out_features = in_features, rank, out_features
        self.first = nn.Linear(in_features, rank, bias=False)
        self.second = nn.Linear(rank, out_features)

    @property
    def bias(self) -> Tensor:
        return self.second.bias

    def settings(self) -> Settings:
        return {"in_features": self.in_features, "rank": self.rank, "out_features": self.out_features}

    def dense(self) -> Tensor:
        return self.second.weight @ self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.second(self.first(x))
        return made
