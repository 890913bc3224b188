"""Weights as numbers of codebook entries: single ones (k-means), or pieces of a row (product quantization)."""

import torch
from torch import Tensor, nn

from affinage.models.modules.base import Settings, register_module
from affinage.models.modules.matrix import Matrix, MatrixEmbedding, MatrixLinear
from affinage.models.modules.packing import pack_bits, packed_bytes, unpack_bits


class CodebookMatrix(Matrix):
    """Row n is book[0 or j, code[n, j]] for j = 0 … cols / width - 1, one piece of `width` numbers after another.

    One book serves all places j, or each has its own. The books are trained where the model is trained.
    """

    codes: Tensor
    """(rows, ⌈cols / width · bits / 8⌉) uint8, packed as `pack_bits` does, 2^bits the least power ≥ entries"""
    book: nn.Parameter
    """(books, entries, width) float32"""

    def __init__(self, rows: int, cols: int, entries: int = 16, width: int = 1, books: int = 1) -> None:
        super().__init__()
        self.rows, self.cols, self.entries, self.width, self.books = rows, cols, entries, width, books
        self.bits = code_bits(entries)
        self.register_buffer("codes", torch.zeros(rows, packed_bytes(cols // width, self.bits), dtype=torch.uint8))
        self.book = nn.Parameter(torch.zeros(books, entries, width))

    def form(self) -> Settings:
        return {"entries": self.entries, "width": self.width, "books": self.books}

    def numbers(self) -> int:
        return self.rows * self.cols // self.width + self.book.numel()

    def read(self, index: Tensor | None = None) -> Tensor:
        packed = self.codes if index is None else self.codes[index]
        codes = unpack_bits(packed, self.bits, self.cols // self.width).int()
        if self.books > 1:
            codes = codes + self.entries * torch.arange(self.books, dtype=torch.int32, device=codes.device)
        return nn.functional.embedding(codes, self.book.float().flatten(0, 1)).flatten(1)


@register_module("codebook-linear")
class CodebookLinear(MatrixLinear):
    """A linear map whose weights are entries of a codebook; activations stay float32."""

    matrix_type = CodebookMatrix


@register_module("codebook-embedding")
class CodebookEmbedding(MatrixEmbedding):
    """A table whose rows are made of codebook entries."""

    matrix_type = CodebookMatrix


def code_bits(entries: int) -> int:
    """Bits that tell `entries` things from one another, 1 at least."""
    return max(1, (entries - 1).bit_length())


def codebook_matrix(codes: Tensor, book: Tensor) -> CodebookMatrix:
    """Of codes (rows, cols / width) in [0, entries), entries ≤ 256, and books (1 or cols / width, entries, width)."""
    books, entries, width = book.shape
    made = CodebookMatrix(codes.shape[0], codes.shape[1] * width, entries, width, books)
    made.codes.copy_(pack_bits(codes, made.bits))
    made.book.data.copy_(book)
    return made
