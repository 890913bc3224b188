"""What every kind of answer is made with: a loaded model, and what the caller asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from tokenizers import Tokenizer

from affinage.data.encoding import Row
from affinage.decoding.zero_shot import DEFAULT_TEMPLATE
from affinage.runtime.facts import Engine, ModelFacts

Result: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Loaded:
    """A model, its tokenizer, and what is known of it."""

    engine: Engine
    tokenizer: Tokenizer
    facts: ModelFacts


@dataclass(frozen=True)
class Options:
    """What a caller may ask for; each kind of answer reads what it knows."""

    batch_size: int
    top_k: int | None = None
    labels: Sequence[str] | None = None
    template: str = DEFAULT_TEMPLATE
    method: str = "entailment_logits"
    normalize: bool | None = None


class Answers(Protocol):
    """A kind of answer. All inputs of a call are checked before any is computed."""

    def check(self, value: Any, where: str) -> Any:
        """The input in the form that `answer` takes. Raises: InputError where it cannot be used."""

    def answer(self, inputs: list[Any], options: Options) -> list[Result]:
        """One result an input, in order."""


def top(ranked: Sequence[Any], top_k: int | None) -> Result:
    """The k best, where they were asked for."""
    return {} if top_k is None else {"top": list(ranked[:top_k])}


def cut(*rows: Row) -> Result:
    """Whether some of the text was not read."""
    return {"truncated": True} if any(row.truncated for row in rows) else {}
