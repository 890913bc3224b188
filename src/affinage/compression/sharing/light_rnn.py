"""Two small embedding tables, with each token in a cell where its row and its column suit it."""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.sharing.quotient_remainder import Share, two_components
from affinage.compression.sharing.tables import CODED_TABLE, placed, smallest_columns
from affinage.compression.stock_table import OnTable, stock_table
from affinage.models.replacing import replace_embedding_


@compressors.register("light-rnn", source="Li et al. 2016 (LightRNN), arXiv:1610.09893, sections 3.1 and 3.3")
@dataclass(frozen=True)
class LightRNN(OnTable):
    """Two-component shared embedding: tokens in a table, a row is the sum of the cell's row and column vectors.

    The smallest tables have 2 √V vectors; with `keep`, columns up to that share of V. Tokens start where the table's
    two main directions put them, and in `rounds` of minimum-cost matching each gets the free cell that suits it.
    (The paper matches by the language model's loss while it trains, and reads row and column one after the other.)
    """

    keep: Share | None = None
    rounds: Annotated[int, Field(ge=0)] = 3

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = CODED_TABLE

    def quick(self) -> "LightRNN":
        """Without rounds of matching."""
        return replace(self, rounds=0)

    @torch.no_grad()
    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        made: PreTrainedModel = deepcopy(model).eval()
        table = stock_table(made, method="light-rnn")
        columns = smallest_columns(table.num_embeddings, self.keep or 0.0)
        cells = placed(table.weight, columns, self.rounds, _matching)
        replace_embedding_(made, two_components(table, cells, columns, product=False, placed=True))
        return made


def _matching(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    from scipy.optimize import linear_sum_assignment

    found: NDArray[np.int64] = linear_sum_assignment(costs)[1]
    return found
