"""Embeddings as a sparse matrix times a block-diagonal one."""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.clustering import lines
from affinage.compression.decomposition.low_rank import FACTORED
from affinage.compression.stock_table import OnTable, stock_table
from affinage.errors import InputError
from affinage.models.modules.coded import CodedEmbedding
from affinage.models.replacing import replace_embedding_


@compressors.register("west", source="Variani et al. 2019 (WEST), arXiv:1811.08417, section 2, weighted sparse codes")
@dataclass(frozen=True)
class WEST(OnTable):
    """The table as C · D: D block-diagonal, `length` blocks of `alphabet` rows; C with one weighted entry a block.

    So a token is a word of `length` letters, each the direction of a part of its row. The paper draws the words at
    random and trains the rest; here they are fitted to the table by k-means with lines for centres.
    """

    length: Annotated[int, Field(ge=1)] = 4
    alphabet: Annotated[int, Field(ge=2)] = 64
    iterations: Annotated[int, Field(ge=0)] = 10

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = replace(
        FACTORED, takes=FACTORED.takes - {"packed-table"}, leaves=frozenset({"factored", "packed-table"})
    )

    def quick(self) -> "WEST":
        """Without rounds of k-means."""
        return replace(self, iterations=0)

    @torch.no_grad()
    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        made: PreTrainedModel = deepcopy(model).eval()
        table = stock_table(made, method="west")
        rows, width = table.weight.shape
        if width % self.length:
            raise InputError(f"west: length {self.length} does not divide the embeddings' width {width}")
        if self.alphabet > rows:
            raise InputError(f"west: an alphabet of {self.alphabet} for {rows} tokens; take a smaller one")
        new = CodedEmbedding(rows, width, self.length, self.alphabet, weighted=True, padding_idx=table.padding_idx)
        assert new.weights is not None
        for i, part in enumerate(table.weight.chunk(self.length, dim=1)):
            codes, weights, units = lines(part, self.alphabet, iterations=self.iterations, seed=resources.seed + i)
            new.codes[:, i], new.weights[:, i], new.letters[i] = codes, weights, units
        replace_embedding_(made, new)
        return made
