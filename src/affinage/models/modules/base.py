"""What stands in the place of a linear map or an embedding table after compression, and how it is built again."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

Settings = Mapping[str, bool | int | float | str | tuple[int, ...]]
"""what a module's constructor takes, as JSON can say it"""


class Compressed(nn.Module):
    """A module with less in it than the `nn.Linear` or `nn.Embedding` that it stands for, and with its interface.

    `type(module)(**module.settings())` makes one of the same shapes, whose tensors a checkpoint then fills; so the
    constructor takes sizes and never weights. What comes from a weight is made by a function beside the class. A
    linear one has `in_features`, `out_features` and `bias`; an embedding `num_embeddings`, `embedding_dim` and
    `padding_idx`.
    """

    kind: ClassVar[str]
    """the name under which checkpoints know it; given by `register_module`"""

    def settings(self) -> Settings:
        """The constructor's arguments."""
        raise NotImplementedError

    def dense(self) -> Tensor:
        """(out, in) or (V, H) float32: the matrix that it stands for; the gradient flows where there is one."""
        raise NotImplementedError


T = TypeVar("T", bound=type[Compressed])
module_kinds: dict[str, type[Compressed]] = {}


def register_module(kind: str) -> Callable[[T], T]:
    """Decorator: checkpoints know the class as `kind`. Raises: ValueError where the name is taken."""

    def add(module: T) -> T:
        if kind in module_kinds:
            raise ValueError(f"module kind '{kind}' is registered twice")
        module.kind = kind
        module_kinds[kind] = module
        return module

    return add


def rebuilt(kind: str, settings: Mapping[str, Any]) -> Compressed:
    """An empty module of a registered kind. Raises: KeyError for a kind that is not."""
    return module_kinds[kind](**settings)
