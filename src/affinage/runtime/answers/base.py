"""What every kind of answer is made with: a loaded model, and what the caller asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from tokenizers import Tokenizer

from affinage.data.encoding import Row, Template, encode_ids, template_of
from affinage.decoding.zero_shot import DEFAULT_TEMPLATE
from affinage.runtime.facts import Engine, ModelFacts

Result: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Loaded:
    """A model, its tokenizer, and what is known of it."""

    engine: Engine
    tokenizer: Tokenizer
    facts: ModelFacts
    _templates: dict[int, Template] = field(default_factory=dict, compare=False, repr=False)

    def rows(self, texts: Sequence[Any], *, max_length: int | None = None) -> list[Row]:
        """Texts, or pairs of texts, as rows of at most so many tokens; None: as many as the model reads."""
        if not texts:
            return []
        count = 2 if isinstance(texts[0], tuple) else 1
        if count not in self._templates:
            self._templates[count] = template_of(self.tokenizer, count)
        length = self.facts.max_length if max_length is None else max_length
        return encode_ids(self.tokenizer, texts, max_length=length, template=self._templates[count])


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
