"""Two small embedding tables, one for the quotient of a token's id and one for its remainder."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.sharing.tables import SHARED_TABLE, fit, smallest_columns
from affinage.compression.stock_table import OnTable, stock_table
from affinage.models.modules.two_component import TwoComponentEmbedding
from affinage.models.replacing import replace_embedding_

Share = Annotated[float, Field(gt=0, lt=1)]


@compressors.register("quotient-remainder", source="Shi et al. 2020, arXiv:1909.02107, section 2")
@dataclass(frozen=True)
class QuotientRemainder(OnTable):
    """A row is the sum, or the product, of one for id // m and one for id % m; no two tokens have the same pair.

    m is the largest with which both tables have the share `keep` of the rows, √V at least. They are fitted to the
    table by least squares; as ids say little of a token, most is for training to recover.
    """

    keep: Share = 0.25
    combine: Literal["sum", "product"] = "sum"

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = SHARED_TABLE

    @torch.no_grad()
    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        made: PreTrainedModel = deepcopy(model).eval()
        table = stock_table(made, method="quotient-remainder")
        columns = smallest_columns(table.num_embeddings, self.keep)
        cells = torch.arange(table.num_embeddings)
        replace_embedding_(made, two_components(table, cells, columns, product=self.combine == "product", placed=False))
        return made


@torch.no_grad()
def two_components(
    table: nn.Embedding, cells: torch.Tensor, columns: int, *, product: bool, placed: bool
) -> TwoComponentEmbedding:
    """The module whose tables are fitted to `table` with its tokens in these cells (V,)."""
    new = TwoComponentEmbedding(
        table.num_embeddings, table.embedding_dim, columns, product, placed, padding_idx=table.padding_idx
    )
    row, column = fit(table.weight, cells, columns, product=product)
    new.row.copy_(row)
    new.column.copy_(column)
    if new.cells is not None:
        new.cells.copy_(cells)
    return new
