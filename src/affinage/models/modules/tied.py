"""The vocabulary projection that uses the rows of an embedding table which is no `nn.Embedding` any more."""

from torch import Tensor, nn
from torch.nn.functional import linear

from affinage.models.modules.base import Compressed


class TiedProjection(nn.Module):
    """(…, H) -> (…, V): x · table.dense()ᵀ + bias.

    The table is the very module of the embeddings, so it is stored, counted and trained once. No checkpoint names this
    one: it follows from replacing the embeddings (`models.replacing`).
    """

    bias: nn.Parameter | None

    def __init__(self, table: Compressed, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.table = table
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Tensor:
        """(V, H): as the `nn.Linear` in this place would have it."""
        return self.table.dense()

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, H) -> (…, V)."""
        return linear(hidden, self.weight, self.bias)
