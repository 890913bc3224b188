"""One call for every task, with the arguments, defaults and results of transformers' pipelines."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from affinage.errors import InputError
from affinage.runtime.answers.base import Loaded, Options
from affinage.runtime.answers.spans import Spans
from affinage.runtime.answers.vectors import Vectors
from affinage.runtime.answers.zero_shot import ZeroShot
from affinage.runtime.inputs import check_count, check_text
from affinage.runtime.stock import classes, masks, tokens

BLOCK = 512
"""inputs of an iterator that are held at a time"""
_TEMPLATE = "This example is {}."  # the stock pipeline's default
_IGNORED = frozenset({"truncation", "padding", "num_workers"})
"""taken and left alone: what is too long is cut, batches are padded as little as can be"""
_TAKEN: dict[str, frozenset[str]] = {
    "classes": frozenset({"top_k", "function_to_apply", "max_length"}),
    "zero_shot_labels": frozenset({"candidate_labels", "hypothesis_template", "multi_label"}),
    "tokens": frozenset({"aggregation_strategy", "ignore_labels", "stride"}),
    "masks": frozenset({"top_k", "targets"}),
    "spans": frozenset({"question", "context", "top_k"}),
    "vectors": frozenset({"normalize"}),
}
_FACES = {"token": "tokens", "fill_mask": "masks", "span": "spans", "embedding": "vectors"}


class Pipeline:
    """A loaded model, called as transformers' pipeline for its task is.

    A text gives a result, a list a list, an iterator an iterator that holds `BLOCK` inputs at a time. What is not a
    pipeline there: questions (`question=`, `context=`, or mappings with these keys) give answer, score, start, end, or
    a list of `top_k` of them; embeddings are lists of numbers.
    """

    def __init__(self, loaded: Loaded, *, batch_size: int, zero_shot: bool = False, **defaults: Any) -> None:
        """`zero_shot`: labels are given with the call. `defaults`: options of every call.

        Raises: InputError for an option that the model's task does not have.
        """
        self.loaded = loaded
        self._batch_size = check_count(batch_size, "batch_size")
        self._zero_shot = zero_shot
        self._defaults = defaults
        if defaults:
            self._taken(self._face(defaults), defaults)

    def __call__(self, inputs: Any = None, *positional: Any, **options: Any) -> Any:
        """The results for inputs. Raises: InputError for an input or an option that cannot be used."""
        given = {**self._defaults, **options}
        if positional and "candidate_labels" not in given:
            given["candidate_labels"] = positional[0]
        face = self._face(given)
        settings = self._taken(face, given)
        size = check_count(given.get("batch_size", self._batch_size), "batch_size")
        if face == "spans" and inputs is None:
            question, context = settings.pop("question", None), settings.pop("context", None)
            inputs = {"question": question, "context": context}
        check, run = getattr(self, f"_{face}")(size, settings)
        if isinstance(inputs, str | Mapping | tuple):
            (result,) = run([check(inputs, "input 1")])
            # The stock classifier wraps the result of one text in a list, unless top_k is given with the call.
            return [result] if face == "classes" and isinstance(inputs, str) and "top_k" not in options else result
        if isinstance(inputs, Sequence) and not isinstance(inputs, bytes):
            checked = [check(one, f"input {i + 1}") for i, one in enumerate(inputs)]
            blocks = (checked[i : i + BLOCK] for i in range(0, len(checked), BLOCK))
            return [result for block in blocks for result in run(block)]
        if isinstance(inputs, Iterable) and not isinstance(inputs, bytes):
            return _streamed(inputs, check, run)
        raise InputError(f"inputs: expected a text, a list or an iterator of texts, got {type(inputs).__name__}")

    def _face(self, options: Mapping[str, Any]) -> str:
        kind = self.loaded.facts.kind
        if self._zero_shot or "candidate_labels" in options:
            if kind != "pair":
                raise InputError(f"candidate_labels need a model of text pairs (NLI); this is a {kind} model")
            return "zero_shot_labels"
        return _FACES.get(kind, "classes")

    def _taken(self, face: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of this face. Raises: InputError for another."""
        allowed = _TAKEN[face]
        wrong = sorted(set(options) - allowed - _IGNORED - {"batch_size"})
        if wrong:
            raise InputError(
                f"option {', '.join(wrong)}: this is a {self.loaded.facts.kind} model, it takes "
                f"{', '.join(sorted(allowed | {'batch_size'}))}"
            )
        for name, value in options.items():
            _check_option(name, value)
        return {name: value for name, value in options.items() if name in allowed}

    def _classes(self, size: int, settings: dict[str, Any]) -> Any:
        return classes.check, lambda block: classes.classify(self.loaded, block, batch_size=size, **settings)

    def _tokens(self, size: int, settings: dict[str, Any]) -> Any:
        given = {name: value for name, value in settings.items() if value is not None}
        return check_text, lambda block: tokens.tag(self.loaded, block, batch_size=size, **given)

    def _masks(self, size: int, settings: dict[str, Any]) -> Any:
        given = {name: value for name, value in settings.items() if value is not None}
        return (
            lambda value, where: masks.check(self.loaded, value, where),
            lambda block: masks.fill(self.loaded, block, batch_size=size, **given),
        )

    def _vectors(self, size: int, settings: dict[str, Any]) -> Any:
        vectors, options = Vectors(self.loaded), Options(size, normalize=settings.get("normalize"))
        return vectors.check, lambda block: [one["embedding"] for one in vectors.answer(block, options)]

    def _spans(self, size: int, settings: dict[str, Any]) -> Any:
        spans, top_k = Spans(self.loaded), settings.get("top_k", 1)
        options = Options(size, top_k=check_count(top_k, "top_k"))
        one = top_k == 1

        def run(block: list[Any]) -> list[Any]:
            found = spans.answer(block, options)
            return [result["top"][0] if one else result["top"] for result in found]

        return spans.check, run

    def _zero_shot_labels(self, size: int, settings: dict[str, Any]) -> Any:
        labels = settings.get("candidate_labels")
        if isinstance(labels, str):
            labels = [label.strip() for label in labels.split(",") if label.strip()]
        if not labels:
            raise InputError(
                "zero-shot classification needs candidate_labels: a list, or words with commas between them"
            )
        alone = settings.get("multi_label", False) or len(labels) == 1
        options = Options(
            size,
            labels=labels,
            template=settings.get("hypothesis_template", _TEMPLATE),
            method="multi_label" if alone else "entailment_logits",
        )
        zero_shot = ZeroShot(self.loaded)
        keys = ("sequence", "labels", "scores")
        return zero_shot.check, lambda block: [
            {key: result[key] for key in keys} for result in zero_shot.answer(block, options)
        ]


def _check_option(name: str, value: Any) -> None:
    """Raises: InputError for a value of a type, or a number, that no task can use."""
    if value is None:
        return
    if name in ("top_k", "max_length"):
        check_count(value, name)
    elif name == "stride":
        check_count(value + 1 if type(value) is int else value, name)  # 0, the stock default, is one
    elif name in ("targets", "candidate_labels", "ignore_labels") and not isinstance(value, str):
        if not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
            raise InputError(f"{name}: expected a list of texts, got {value!r:.60}")
        if name == "targets" and not value:
            raise InputError("targets: the list is empty; give at least one word, or leave it out")
    elif name in ("function_to_apply", "aggregation_strategy", "hypothesis_template") and not isinstance(value, str):
        raise InputError(f"{name}: expected a text, got {value!r:.60}")


def _streamed(inputs: Iterable[Any], check: Callable[..., Any], run: Callable[..., Any]) -> Iterator[Any]:
    given, number = iter(inputs), 0
    while block := list(itertools.islice(given, BLOCK)):
        checked = [check(value, f"input {number + i + 1}") for i, value in enumerate(block)]
        number += len(block)
        yield from run(checked)
