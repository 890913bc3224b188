"""An embedding table of V rows made of two small ones, whose cells are the tokens."""

import torch
from torch import Tensor, nn

from affinage.models.modules.base import Compressed, Settings, register_module
from affinage.models.modules.low_rank import table_settings


@register_module("two-component-embedding")
class TwoComponentEmbedding(Compressed):
    """(…) ids -> (…, H): row[cell // columns] + column[cell % columns], or their product.

    The cell is the id itself, or cells[id] (V,) where `placed`. `row` is (⌈V / columns⌉, H), `column` (columns, H).
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        columns: int,
        product: bool = False,
        placed: bool = False,
        padding_idx: int | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.columns, self.product, self.placed = columns, product, placed
        self.row = nn.Parameter(torch.empty(-(-num_embeddings // columns), embedding_dim))
        self.column = nn.Parameter(torch.empty(columns, embedding_dim))
        self.cells: Tensor | None
        self.register_buffer("cells", torch.zeros(num_embeddings, dtype=torch.int32) if placed else None)

    def settings(self) -> Settings:
        return table_settings(self) | {"columns": self.columns, "product": self.product, "placed": self.placed}

    def dense(self) -> Tensor:
        whole: Tensor = self(torch.arange(self.num_embeddings, device=self.row.device))
        return whole

    def forward(self, ids: Tensor) -> Tensor:
        """(…) int64 -> (…, H)."""
        cells = ids if self.cells is None else self.cells[ids].long()
        row, column = self.row[cells // self.columns], self.column[cells % self.columns]
        return row * column if self.product else row + column
