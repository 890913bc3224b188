"""An embedding table whose rows are written as short words of an alphabet of vectors."""

import torch
from torch import Tensor, nn

from affinage.models.modules.base import Compressed, Settings, register_module
from affinage.models.modules.low_rank import table_settings


@register_module("coded-embedding")
class CodedEmbedding(Compressed):
    """(…) ids -> (…, H): the letters of the id's word one after another, each times its weight where `weighted`.

    `codes` (V, length) says which letter stands at each place; `letters` (places, alphabet, H / length) are the
    vectors, of one alphabet for all places where `common`, else of one for each; `weights` (V, length) or none.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        length: int,
        alphabet: int,
        common: bool = False,
        weighted: bool = False,
        padding_idx: int | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.length, self.alphabet, self.common, self.weighted = length, alphabet, common, weighted
        self.letters = nn.Parameter(torch.empty(1 if common else length, alphabet, embedding_dim // length))
        self.weights = nn.Parameter(torch.empty(num_embeddings, length)) if weighted else None
        self.codes: Tensor
        self.register_buffer("codes", torch.zeros(num_embeddings, length, dtype=smallest_integer(alphabet)))

    def settings(self) -> Settings:
        names = ("length", "alphabet", "common", "weighted")
        return table_settings(self) | {name: getattr(self, name) for name in names}

    def dense(self) -> Tensor:
        whole: Tensor = self(torch.arange(self.num_embeddings, device=self.codes.device))
        return whole

    def forward(self, ids: Tensor) -> Tensor:
        """(…) int64 -> (…, H)."""
        places = torch.zeros_like if self.common else torch.ones_like
        codes = self.codes[ids].long()
        found = self.letters[places(codes) * torch.arange(self.length, device=ids.device), codes]
        if self.weights is not None:
            found = found * self.weights[ids][..., None]
        return found.flatten(-2)


def smallest_integer(count: int) -> torch.dtype:
    """The narrowest integers that tell `count` things apart."""
    return torch.uint8 if count <= 2**8 else torch.int16 if count <= 2**15 else torch.int32
