"""Shared values: each weight is the nearest of a few (k-means), each piece of a table's row one of a book's."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.quantization.clusters import cluster_numbers, cluster_vectors
from affinage.compression.quantization.places import (
    LEAVES,
    TABLE_LEAVES,
    TABLE_TAKES,
    TAKES,
    FewBits,
    Parts,
    no_linear,
    quantized,
)
from affinage.models.modules.base import Compressed
from affinage.models.modules.codebook import CodebookEmbedding, CodebookLinear, CodebookMatrix, codebook_matrix
from affinage.models.modules.matrix import packed_embedding, packed_linear


@compressors.register("k-means", source="Han et al. 2015 (Deep Compression), arXiv:1510.00149, section 3")
@dataclass(frozen=True, kw_only=True)
class KMeans(FewBits):
    """Weights as the nearest of 2^bits values of their matrix. Smaller; faster where activations have 8 bits."""

    bits: int = 4
    """a weight's, 1 to 8"""

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = Traits("quantization", TAKES - {"sparse"}, LEAVES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.bits <= 8:
            raise ValueError(f"bits are 1 to 8, not {self.bits}")

    def quick(self) -> "KMeans":
        """With two values a matrix."""
        return replace(self, bits=1)

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        def matrix(weight: Tensor) -> CodebookMatrix:
            codes, centres = cluster_numbers(weight.flatten(), 2**self.bits)
            return codebook_matrix(codes.view_as(weight), centres[None, :, None])

        def make_linear(path: str, linear: nn.Linear) -> Compressed:
            return packed_linear(CodebookLinear, linear, matrix(linear.weight), self.activations)

        def make_table(path: str, table: nn.Embedding) -> Compressed:
            return packed_embedding(CodebookEmbedding, table, matrix(table.weight))

        return quantized(model, self, make_linear, make_table, method="k-means")


@compressors.register(
    "pq-embeddings", source="Jégou et al. 2011, TPAMI 33(1), section II-B; Gong et al. 2014, 1412.6115"
)
@dataclass(frozen=True, kw_only=True)
class ProductQuantizedEmbeddings:
    """Word and position embeddings cut into pieces, each the nearest entry of its place's book. Smaller, not faster."""

    width: int = 4
    """numbers in a piece, at most: the widest that divides the table's width, which is any where it is a factor's"""
    entries: int = 256
    """of a book, 2 to 256; a quarter of the table's rows where that is fewer"""

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = Traits("quantization", TABLE_TAKES - {"sparse"}, TABLE_LEAVES)

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width is at least 1, not {self.width}")
        if not 2 <= self.entries <= 256:
            raise ValueError(f"entries are 2 to 256, not {self.entries}")

    def quick(self) -> "ProductQuantizedEmbeddings":
        """With the smallest books."""
        return replace(self, entries=2)

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        def make_table(path: str, table: nn.Embedding) -> Compressed:
            return packed_embedding(CodebookEmbedding, table, self.matrix(table.weight, resources.seed))

        return quantized(model, Parts(encoder=False, heads=False), no_linear, make_table, method="pq-embeddings")

    def matrix(self, weight: Tensor, seed: int) -> CodebookMatrix:
        """The table (V, H) as codes and books."""
        rows, cols = weight.shape
        width = next(size for size in range(min(self.width, cols), 0, -1) if cols % size == 0)
        entries = min(self.entries, max(2, rows // 4))
        pieces = weight.detach().unflatten(1, (-1, width))
        found = [cluster_vectors(pieces[:, j], entries, seed=seed + j) for j in range(pieces.shape[1])]
        return codebook_matrix(torch.stack([c for c, _ in found], 1), torch.stack([b for _, b in found]))
