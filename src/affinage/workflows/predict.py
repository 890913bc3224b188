"""`affinage predict`: what a model says about texts given on the command line, in a file, or from Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from affinage.decoding.zero_shot import DEFAULT_METHOD, DEFAULT_TEMPLATE
from affinage.errors import InputError
from affinage.runtime.load import EngineName, load
from affinage.runtime.predictor import BATCH_SIZE


def predict(
    model: str | Path,
    inputs: str | Sequence[Any] | Mapping[str, str] | None = None,
    *,
    task: str | None = None,
    question: str | None = None,
    context: str | None = None,
    labels: Sequence[str] | None = None,
    template: str | None = None,
    method: str | None = None,
    top_k: int | None = None,
    engine: EngineName | None = None,
    threads: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> list[dict[str, Any]]:
    """One result an input, in order: see `Predictor.predict`. The model's task is found in its config.

    `question` with `context` is one input of question answering; with `inputs`, every input is a context. `labels`
    asks an NLI model for zero-shot classification; `template` is the hypothesis, with one {} for the label.
    `engine`, `threads`: see `affinage.load`.

    Raises: InputError where an argument, an input or the model cannot be used; arguments are checked first.
    """
    asked = _inputs(inputs, question, context)
    if task == "zero-shot" and not labels:
        raise InputError("zero-shot classification needs labels (--labels sport,politique)")
    for name, value in (("template", template), ("method", method)):
        if value is not None and not labels:
            raise InputError(f"a {name} is for zero-shot classification: give labels too")
    predictor = load(model, task=task, engine=engine, threads=threads)
    if top_k is not None and predictor.kind in ("token", "embedding", "regression"):
        raise InputError(f"top_k: a {predictor.kind} model gives no ranked answers; leave it out")
    results: list[dict[str, Any]] = predictor.predict(
        asked,
        top_k=top_k,
        labels=labels or None,
        template=DEFAULT_TEMPLATE if template is None else template,
        method=method or DEFAULT_METHOD,
        batch_size=batch_size,
    )
    return results


def _inputs(inputs: Any, question: str | None, context: str | None) -> Any:
    """The inputs as the predictor takes them. Raises: InputError where nothing, or too much, was given."""
    if question is None:
        if context is not None:
            raise InputError("a context needs a question: give both")
        if inputs is None:
            raise InputError("nothing to predict: give a text, a file or standard input")
        return inputs
    if (context is None) == (inputs is None):
        raise InputError("a question needs one context: give it as context, or as the inputs")
    if context is not None:
        return [{"question": question, "context": context}]
    contexts = [inputs] if isinstance(inputs, str) else inputs
    return [{"question": question, "context": text} for text in contexts or []]
