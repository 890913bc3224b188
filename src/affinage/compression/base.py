"""What a compressor is, what it may ask for, what it promises of composition, and where it is registered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from affinage.registry import Registry
from affinage.signals import Batch

Paradigm = Literal["pruning", "quantization", "sharing", "decomposition", "vocabulary"]
Form = Literal["dense", "sparse", "uneven", "factored", "shared", "packed", "packed-table", "stock-albert"]
"""How weights may stand in a model: whole; with zeros that must stay; layers of unlike sizes; as products of smaller
tensors (low rank, block-diagonal, Kronecker, tensor train); one tensor in several places; as integers with scales, the
linear maps or the tables."""

Side = Literal["attention", "feed-forward", "embeddings"]
"""Of a model: the linear maps of its layers that belong to attention, those that do not, and the word embeddings."""

NEEDS = frozenset({"calibration", "gradients", "score", "latency", "texts"})
"""What a compressor may ask of `Resources`."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a compressor may need besides the model. What none of `needs` asks for may be None."""

    calibration: Sequence[Batch] | None = None
    """batches of the training part, with labels ("calibration", "gradients")"""
    loss: Callable[[PreTrainedModel, Batch], Tensor] | None = None
    """scalar: the task's mean loss over a batch; for a masked language model that of masked tokens ("gradients")"""
    score: Callable[[PreTrainedModel], float] | None = None
    """the task's main metric on the valid part, more is better ("score")"""
    latency: Callable[[PreTrainedModel, PreTrainedModel], float] | None = None
    """the time of one text of 128 tokens as a share of what the second model takes ("latency")"""
    texts: Sequence[str] | None = None
    """raw texts as the model will read them ("texts")"""
    seed: int = 0


@dataclass(frozen=True)
class Traits:
    """What a method takes and leaves, from which follows what may come after what."""

    paradigm: Paradigm
    takes: frozenset[Form]
    """forms that the model's weights may stand in"""
    leaves: frozenset[Form] = frozenset({"dense"})
    """forms that it adds: {"dense"} where the result is a stock model again"""
    trains: bool = True
    """whether training afterwards reaches what it leaves; not where that is integers in the places of all weights"""


class Compressor(Protocol):
    """A frozen dataclass whose fields are its parameters. It returns a new model and leaves the argument alone."""

    needs: ClassVar[frozenset[str]]
    """of `NEEDS`"""
    traits: ClassVar[Traits]

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        """The compressed model, in eval mode.

        Raises: InputError where the method does not fit the architecture, or a parameter the model.
        """
        ...


@runtime_checkable
class ChangesTokenizer(Protocol):
    """A compressor after which texts are cut into other ids: it is asked this instead of `apply`."""

    needs: ClassVar[frozenset[str]]
    traits: ClassVar[Traits]

    def apply_with_tokenizer(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, resources: Resources
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
        """The compressed model and the tokenizer that belongs to it."""
        ...


@runtime_checkable
class TrainedCompressor(Protocol):
    """A method that happens during recovery training: movement or gradual pruning, quantization-aware training.

    Its state (scores, masks, ranges) lives in the prepared model's parameters and buffers: a checkpoint holds it.
    """

    needs: ClassVar[frozenset[str]]
    traits: ClassVar[Traits]

    def prepare(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        """A new model to be trained."""
        ...

    def on_step(self, model: PreTrainedModel, step: int, total: int) -> None:
        """Called before optimizer step `step` (from 0) of `total`."""
        ...

    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        """What is kept, as a new model."""
        ...


@runtime_checkable
class ReplacesParts(Protocol):
    """A compressor that puts other modules in the places of whole maps or of a whole table: of each only once."""

    @property
    def works_on(self) -> frozenset[Side]:
        """Where it looks for modules that are whole, and is of no use without any."""
        ...

    @property
    def uses_up(self) -> frozenset[Side]:
        """Where it leaves none, of a model whose sizes suit it."""
        ...


@runtime_checkable
class TakesLong(Protocol):
    """A compressor whose work can be left out where only what it refuses is to be known."""

    def quick(self) -> "Compressor":
        """One that refuses the same, and leaves modules of the same kinds where others may follow in the same sizes."""
        ...


compressors: Registry[Compressor | ChangesTokenizer | TrainedCompressor] = Registry("compressor")


def may_follow(first: Traits, then: Traits) -> bool:
    """Whether `then` can take what `first` leaves."""
    return first.leaves <= then.takes
