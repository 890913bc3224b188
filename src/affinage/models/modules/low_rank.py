"""A linear map, or an embedding table, as the product of two thin ones."""

from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.utils import skip_init

from affinage.models.modules.base import Compressed, Settings, register_module

M = TypeVar("M", bound=nn.Module)


def empty(kind: type[M], *sizes: int, **settings: Any) -> M:
    """A stock module whose tensors hold anything, to be filled; no random numbers are drawn."""
    made: M = skip_init(kind, *sizes, **settings)
    return made


def dense_of(module: nn.Module) -> Tensor:
    """(out, in) or (V, H): the weight of a stock linear map or embedding, or what a `Compressed` one stands for."""
    weight = module.dense() if isinstance(module, Compressed) else module.weight
    assert isinstance(weight, Tensor)
    return weight


@register_module("low-rank-linear")
class LowRankLinear(Compressed):
    """(…, in) -> (…, out): up(down(x)), where down is (rank, in) without bias and up (out, rank) with the map's bias.

    Both are linear maps by themselves, which a quantizer may replace.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.down = empty(nn.Linear, in_features, rank, bias=False)
        self.up = empty(nn.Linear, rank, out_features, bias=bias)

    @property
    def bias(self) -> Tensor | None:
        """(out,)."""
        bias = self.up.bias
        assert bias is None or isinstance(bias, Tensor)
        return bias

    def settings(self) -> Settings:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "rank": self.rank,
            "bias": self.bias is not None,
        }

    def dense(self) -> Tensor:
        return dense_of(self.up) @ dense_of(self.down)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        out: Tensor = self.up(self.down(x))
        return out


@register_module("low-rank-embedding")
class LowRankEmbedding(Compressed):
    """(…) ids -> (…, H): up(table[ids]), where the table is (V, rank) and up (H, rank) has no bias."""

    def __init__(self, num_embeddings: int, embedding_dim: int, rank: int, padding_idx: int | None = None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.rank = num_embeddings, embedding_dim, rank
        self.padding_idx = padding_idx
        self.table = empty(nn.Embedding, num_embeddings, rank, padding_idx=padding_idx)
        self.up = empty(nn.Linear, rank, embedding_dim, bias=False)

    def settings(self) -> Settings:
        return table_settings(self) | {"rank": self.rank}

    def dense(self) -> Tensor:
        return dense_of(self.table) @ dense_of(self.up).t()

    def forward(self, ids: Tensor) -> Tensor:
        """(…) int64 -> (…, H)."""
        out: Tensor = self.up(self.table(ids))
        return out


def table_settings(module: nn.Module) -> dict[str, bool | int | float | str | tuple[int, ...]]:
    """The sizes of an embedding, as every compressed one's constructor takes them."""
    names = ("num_embeddings", "embedding_dim", "padding_idx")
    return {name: value for name in names if (value := getattr(module, name)) is not None}
