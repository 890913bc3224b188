"""A linear map, or an embedding table, as a tensor train."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from affinage.models.modules.base import Compressed, Settings, register_module
from affinage.models.modules.low_rank import table_settings


class _Train(Compressed):
    """Cores (r, m, n, r') of a matrix whose rows and columns are counted by digits m and n, the first the greatest."""

    def __init__(self, rows: Sequence[int], columns: Sequence[int], ranks: Sequence[int]) -> None:
        super().__init__()
        self.rows, self.columns, self.ranks = tuple(rows), tuple(columns), tuple(ranks)
        ends = (1, *ranks, 1)
        shapes = zip(ends[:-1], rows, columns, ends[1:], strict=True)
        self.cores = nn.ParameterList([nn.Parameter(torch.empty(shape)) for shape in shapes])

    def _whole(self) -> Tensor:
        """(product of rows, product of columns)."""
        found: Tensor = self.cores[0]
        for core in list(self.cores)[1:]:
            found = torch.einsum("amnb,bpqc->ampnqc", found, core)
            a, m, p, n, q, c = found.shape
            found = found.reshape(a, m * p, n * q, c)
        whole: Tensor = found[0, ..., 0]
        return whole


@register_module("tensor-train-linear")
class TensorTrainLinear(_Train):
    """(…, in) -> (…, out): the matrix is made of its cores whenever it is used, so it is smaller, not faster.

    `rows` are the digits of out, `columns` those of in, `ranks` those between neighbouring cores.
    """

    def __init__(self, rows: Sequence[int], columns: Sequence[int], ranks: Sequence[int], bias: bool = True) -> None:
        super().__init__(rows, columns, ranks)
        self.in_features, self.out_features = prod(columns), prod(rows)
        self.bias = nn.Parameter(torch.empty(self.out_features)) if bias else None

    def settings(self) -> Settings:
        return {"rows": self.rows, "columns": self.columns, "ranks": self.ranks, "bias": self.bias is not None}

    def dense(self) -> Tensor:
        return self._whole()

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return linear(x, self.dense(), self.bias)


@register_module("tensor-train-embedding")
class TensorTrainEmbedding(_Train):
    """(…) ids -> (…, H): the product over the digits of the id of each core's slice (r, n, r').

    `rows` are the digits of the vocabulary, filled up where it is no such product; `columns` those of H.
    """

    def __init__(
        self,
        num_embeddings: int,
        rows: Sequence[int],
        columns: Sequence[int],
        ranks: Sequence[int],
        padding_idx: int | None = None,
    ) -> None:
        super().__init__(rows, columns, ranks)
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, prod(columns), padding_idx

    def settings(self) -> Settings:
        sizes = table_settings(self)
        del sizes["embedding_dim"]
        return sizes | {"rows": self.rows, "columns": self.columns, "ranks": self.ranks}

    def dense(self) -> Tensor:
        return self._whole()[: self.num_embeddings]

    def multiply_adds(self) -> int:
        """Of one slice after another: (columns so far, r) by (r, n·r')."""
        sizes = zip(self.columns[1:], self.ranks, (*self.ranks[1:], 1), strict=True)
        return sum(prod(self.columns[:i]) * r * n * after for i, (n, r, after) in enumerate(sizes, 1))

    def forward(self, ids: Tensor) -> Tensor:
        """(…) int64 -> (…, H)."""
        flat, below = ids.reshape(-1), prod(self.rows)
        found = ids.new_ones(len(flat), 1, 1, dtype=self.cores[0].dtype)  # (N, columns so far, r)
        for size, core in zip(self.rows, self.cores, strict=True):
            below //= size
            slices = core.permute(1, 0, 2, 3)[flat // below % size]  # (N, r, n, r')
            found = torch.einsum("nhr,nrqs->nhqs", found, slices).flatten(1, 2)
        return found.reshape(*ids.shape, self.embedding_dim)
