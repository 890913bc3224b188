"""What stands in the place of a linear map or an embedding table after compression, and how it is built again."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, TypeVar

from torch import Tensor, nn

Settings = Mapping[str, bool | int | float | str | tuple[int, ...] | None]
"""what a module's constructor takes, as JSON can say it"""


InputForm = Literal["float", "dynamic", "static"]
"""inputs of linear maps: as they are; in 8 bits, in the batch's range, or in one that was measured"""


class Compressed(nn.Module):
    """A module with less in it than the `nn.Linear` or `nn.Embedding` that it stands for, and with its interface.

    `type(module)(**module.settings())` makes one of the same shapes, whose tensors a checkpoint then fills; so the
    constructor takes sizes and never weights. What comes from a weight is made by a function beside the class. A
    linear one has `in_features`, `out_features` and `bias`; an embedding `num_embeddings`, `embedding_dim` and
    `padding_idx`.
    """

    kind: ClassVar[str]
    """the name under which checkpoints know it; given by `register_module`"""
    inputs: InputForm = "float"
    """of a linear map; where they are rounded, integers are multiplied"""

    def settings(self) -> Settings:
        """The constructor's arguments."""
        raise NotImplementedError

    def dense(self) -> Tensor:
        """(out, in) or (V, H) float32: the matrix that it stands for; the gradient flows where there is one."""
        raise NotImplementedError

    def held(self) -> list[Tensor]:
        """What it stores itself: each tensor once, those of linear maps and `Compressed` modules within it aside."""
        within = [m for m in self.modules() if m is not self and isinstance(m, Compressed | nn.Linear)]
        theirs = {id(t) for module in within for t in module.state_dict(keep_vars=True).values()}
        own = {id(t): t for t in self.state_dict(keep_vars=True).values()}
        return [tensor for key, tensor in own.items() if key not in theirs]

    def numbers(self) -> int:
        """How many numbers `held` holds: what counts as its parameters.

        Where several are packed into one entry of a tensor, each counts: such a kind says so here.
        """
        return sum(tensor.numel() for tensor in self.held())

    def multiply_adds(self) -> int:
        """Of one row, or one id: those of the linear maps in it, else of the matrix that it stands for; a table's none.

        A kind that computes otherwise says so here. Making the matrix of what is stored (unpacking, joining cores) is
        not among them: it is done once for all rows, and in a graph once for all.
        """
        sizes: Any = self
        parts = [part for part in self.children() if isinstance(part, Compressed | nn.Linear)]
        if parts or not hasattr(self, "in_features"):
            return sum(map(multiply_adds, parts))
        return int(sizes.in_features) * int(sizes.out_features)


def multiply_adds(module: nn.Module) -> int:
    """Of one row through every linear map of a module, compressed ones as they compute: what lies in those, once."""
    if isinstance(module, Compressed):
        return module.multiply_adds()
    if isinstance(module, nn.Linear):
        return module.in_features * module.out_features
    return sum(map(multiply_adds, module.children()))


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
