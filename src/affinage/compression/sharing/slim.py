"""Embedding rows made of sub-vectors that all tokens share."""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.clustering import centres
from affinage.compression.sharing.tables import CODED_TABLE
from affinage.compression.stock_table import OnTable, stock_table
from affinage.errors import InputError
from affinage.models.modules.coded import CodedEmbedding
from affinage.models.replacing import replace_embedding_

Share = Annotated[float, Field(gt=0, lt=1)]


@compressors.register("slim-embeddings", source="Li et al. 2018 (Slim Embedding), arXiv:1711.09873, section 3")
@dataclass(frozen=True)
class SlimEmbeddings(OnTable):
    """Each row is cut into `pieces`, and each piece is one of a pool of sub-vectors that all rows and places share.

    The pool is as large as the share `keep` of the table. The paper assigns sub-vectors at random and trains them;
    here pool and assignment are fitted to the table by k-means.
    """

    pieces: Annotated[int, Field(ge=2)] = 8
    keep: Share = 0.125
    iterations: Annotated[int, Field(ge=0)] = 5

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = CODED_TABLE

    def quick(self) -> "SlimEmbeddings":
        """Without rounds of k-means."""
        return replace(self, iterations=0)

    @torch.no_grad()
    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        made: PreTrainedModel = deepcopy(model).eval()
        table = stock_table(made, method="slim-embeddings")
        rows, width = table.weight.shape
        if width % self.pieces:
            raise InputError(f"slim-embeddings: {self.pieces} pieces do not divide the embeddings' width {width}")
        count = max(1, int(self.keep * rows * self.pieces))
        new = CodedEmbedding(rows, width, self.pieces, count, common=True, padding_idx=table.padding_idx)
        parts = table.weight.reshape(rows * self.pieces, -1)
        codes, pool = centres(parts, count, iterations=self.iterations, seed=resources.seed)
        new.letters[0] = pool
        new.codes.copy_(codes.reshape(rows, self.pieces))
        replace_embedding_(made, new)
        return made
