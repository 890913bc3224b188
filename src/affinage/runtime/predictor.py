"""Text in, answer out: one face for every kind of fine-tuned model, for masked language models and for embeddings."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypedDict, Unpack, overload

from tokenizers import Tokenizer

from affinage.decoding.zero_shot import fill_template, nli_classes, zero_shot_method
from affinage.errors import InputError, unknown
from affinage.runtime.answers.base import Answers, Loaded, Options, Result
from affinage.runtime.answers.classes import Classes, Labels, Values
from affinage.runtime.answers.entities import Entities
from affinage.runtime.answers.masks import Masks
from affinage.runtime.answers.spans import Spans
from affinage.runtime.answers.vectors import Vectors
from affinage.runtime.answers.zero_shot import ZeroShot
from affinage.runtime.facts import Engine, ModelFacts, ModelKind
from affinage.runtime.inputs import as_list, check_count, check_labels
from affinage.runtime.stock.pipeline import Pipeline

BLOCK = 512
"""inputs encoded, computed and decoded at a time: bounds memory, and is what lengths are sorted within"""
BATCH_SIZE = 64
"""rows of a batch at most; long ones are fewer, see `facts.TOKENS`"""

_ANSWERS: dict[ModelKind, type[Any]] = {
    "sequence": Classes,
    "pair": Classes,
    "multi_label": Labels,
    "regression": Values,
    "token": Entities,
    "span": Spans,
    "fill_mask": Masks,
    "embedding": Vectors,
}


class Asked(TypedDict, total=False):
    """The options of `Predictor.predict`."""

    top_k: int | None
    labels: Sequence[str] | None
    template: str
    method: str
    normalize: bool | None
    batch_size: int | None


class Predictor:
    """An engine that makes logits, a tokenizer, and what is known of the model: `affinage.load` makes one.

    `predict` gives affinage's results; called like a function it takes the arguments and gives the results of
    transformers' pipeline for the model's task.
    """

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, facts: ModelFacts, *, batch_size: int = BATCH_SIZE
    ) -> None:
        self.kind: ModelKind = facts.kind
        self.max_length = facts.max_length
        """tokens a row may have, special tokens included; longer texts are cut (and say so) or read in windows"""
        self.labels = facts.labels
        self.batch_size = check_count(batch_size, "batch_size")
        self.loaded = Loaded(engine, tokenizer, facts)
        self._answers: Answers = _ANSWERS[facts.kind](self.loaded)
        self._pipeline = Pipeline(self.loaded, batch_size=batch_size)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """What transformers' pipeline for the model's task answers: see `stock.pipeline.Pipeline`."""
        return self._pipeline(*args, **options)

    @overload
    def predict(self, inputs: Iterator[Any], **options: Unpack[Asked]) -> Iterator[Result]: ...

    @overload
    def predict(self, inputs: Any, **options: Unpack[Asked]) -> list[Result]: ...

    def predict(self, inputs: Any, **options: Unpack[Asked]) -> list[Result] | Iterator[Result]:
        """One result an input, in the order of the inputs: a list, all inputs being checked before any is computed; for
        an iterator (a generator, a file) an iterator, see `stream`.

        | model | an input | its result |
        |---|---|---|
        | sequence | text | label, score |
        | pair | (premise, hypothesis) | label, score |
        | multi_label | text | labels, scores (those that hold: probability 0.5 or more, of each for itself) |
        | regression | text, or (premise, hypothesis) | value |
        | pair, with `labels` | text | sequence, labels, scores (zero-shot; `template`, `method`) |
        | token | text | entities: entity_group, score, word, start, end |
        | span | {"question", "context"} | answer, score, start, end |
        | fill_mask | text with one <mask> | token_str, score, sequence |
        | embedding | text | embedding (`normalize`: to length 1; None: as the model's files say, else yes) |

        `top_k` adds "top", the k best (or keeps the k best zero-shot labels). A text or pair that the model could not
        read to its end gives "truncated": true; entities and answers are found in texts of any length. `batch_size`:
        rows computed at once, at most.

        Raises: InputError naming the first input that cannot be used.
        """
        if isinstance(inputs, Iterator):
            return self.stream(inputs, **options)
        answers, chosen = self._asked(options)
        given = as_list(inputs)
        checked = [answers.check(value, f"input {i + 1}") for i, value in enumerate(given)]
        results: list[Result] = []
        for start in range(0, len(checked), BLOCK):
            results += answers.answer(checked[start : start + BLOCK], chosen)
        return results

    def stream(self, inputs: Iterable[Any], **options: Unpack[Asked]) -> Iterator[Result]:
        """The results of `predict`, one after another, of inputs without end: `BLOCK` of them are held at a time.

        Raises: InputError at once for an option, and where an input cannot be used when its turn comes; the results of
        the blocks before it have been given by then.
        """
        answers, chosen = self._asked(options)
        return self._streamed(iter(inputs), answers, chosen)

    def _streamed(self, inputs: Iterator[Any], answers: Answers, options: Options) -> Iterator[Result]:
        number = 0
        while block := list(itertools.islice(inputs, BLOCK)):
            checked = [answers.check(value, f"input {number + i + 1}") for i, value in enumerate(block)]
            number += len(block)
            yield from answers.answer(checked, options)

    def _asked(self, asked: Asked) -> tuple[Answers, Options]:
        """The kind of answer and its options. Raises: InputError for one that cannot be used."""
        if wrong := sorted(asked.keys() - Asked.__annotations__.keys()):
            raise InputError(unknown("option", wrong[0], Asked.__annotations__))
        for name in ("top_k", "batch_size"):
            if asked.get(name) is not None:
                check_count(asked[name], name)
        options = Options(**{**asked, "batch_size": asked.get("batch_size") or self.batch_size})  # type: ignore[arg-type]
        if options.labels is None:
            return self._answers, options
        if self.kind != "pair":
            raise InputError(f"labels need a model of text pairs (NLI); this is a {self.kind} model")
        zero_shot_method(options.method)
        nli_classes(self.labels)
        for label in check_labels(options.labels):
            fill_template(options.template, label)
        return ZeroShot(self.loaded), options
