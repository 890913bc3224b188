"""A matrix that is kept packed, and the linear map and the table that read it.

The linear map unpacks the whole matrix for every pass, the table the rows that are asked for: smaller, not faster.
Where its inputs are rounded to 8 bits, a map multiplies integers: its matrix, unpacked, is rounded to `PRODUCT_BITS`.
"""

from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as float_linear

from affinage.models.modules.base import Compressed, Settings
from affinage.models.modules.int8 import input_range, int8_scale, integer_linear, straight_through, to_int8

Inputs = Literal["float", "dynamic"]
"""of a linear map: as they are, or in 8 bits, in the range of each batch"""
PRODUCT_BITS = 7
"""of the weights in products of integers, so that 16-bit sums of processors without VNNI do not saturate; beside the
rounding to 4 bits that of one bit in eight does not count, and signs stay what they are
"""


class Matrix(nn.Module):
    """(rows, cols) numbers in some packed form, of which any row can be read alone."""

    rows: int
    cols: int

    def form(self) -> Settings:
        """The constructor's arguments besides `rows` and `cols`."""
        raise NotImplementedError

    def read(self, index: Tensor | None = None) -> Tensor:
        """(n, cols) float32: the rows of an (n,) index, or all."""
        raise NotImplementedError

    def numbers(self) -> int:
        """How many numbers it holds, however many bits each has."""
        raise NotImplementedError


class MatrixLinear(Compressed):
    """y = x · matrixᵀ + bias."""

    matrix_type: ClassVar[type[Matrix]]

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, inputs: Inputs = "float", **form: Any
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.inputs = in_features, out_features, inputs
        self.matrix = self.matrix_type(out_features, in_features, **form)
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def settings(self) -> Settings:
        sizes = {"in_features": self.in_features, "out_features": self.out_features, "bias": self.bias is not None}
        rounded = {} if self.inputs == "float" else {"inputs": self.inputs}
        return {**sizes, **rounded, **self.matrix.form()}

    def dense(self) -> Tensor:
        return self.matrix.read()

    def numbers(self) -> int:
        return self.matrix.numbers() + (0 if self.bias is None else self.bias.numel())

    @property
    def weight(self) -> Tensor:
        """`dense`, for what reads the weight of a linear map."""
        return self.dense()

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        dense = self.dense()
        if self.inputs == "float":
            return float_linear(x, dense, self.bias)
        seen, scale = x.detach().float(), int8_scale(dense, bits=PRODUCT_BITS)
        y = integer_linear(seen, input_range(seen.amin(), seen.amax()), to_int8(dense, scale), scale, self.bias)
        return straight_through(y, x, dense, self.bias) if torch.is_grad_enabled() else y


class MatrixEmbedding(Compressed):
    """Rows of a packed matrix by their number."""

    matrix_type: ClassVar[type[Matrix]]

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, **form: Any) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.matrix = self.matrix_type(num_embeddings, embedding_dim, **form)

    def settings(self) -> Settings:
        padding = {} if self.padding_idx is None else {"padding_idx": self.padding_idx}
        sizes = {"num_embeddings": self.num_embeddings, "embedding_dim": self.embedding_dim}
        return {**sizes, **padding, **self.matrix.form()}

    def dense(self) -> Tensor:
        return self.matrix.read()

    def numbers(self) -> int:
        return self.matrix.numbers()

    def forward(self, ids: Tensor) -> Tensor:
        """(…) ids -> (…, H)."""
        return self.matrix.read(ids.reshape(-1)).reshape(*ids.shape, self.embedding_dim)


L = TypeVar("L", bound=MatrixLinear)
E = TypeVar("E", bound=MatrixEmbedding)


def packed_linear(kind: type[L], linear: nn.Linear, matrix: Matrix, inputs: Inputs = "float") -> L:
    """A linear map of the bias of `linear` that reads `matrix`."""
    made = kind(linear.in_features, linear.out_features, linear.bias is not None, inputs, **matrix.form())
    made.matrix = matrix
    if made.bias is not None:
        made.bias.data.copy_(linear.bias.detach())
    return made.eval()


def packed_embedding(kind: type[E], table: nn.Embedding, matrix: Matrix) -> E:
    """A table that reads `matrix`."""
    made = kind(table.num_embeddings, table.embedding_dim, table.padding_idx, **matrix.form())
    made.matrix = matrix
    return made.eval()
