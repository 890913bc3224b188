"""As transformers' text-classification pipeline: label and score of texts, or of {"text", "text_pair"}."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from affinage.decoding.labels import Floats, Label, sigmoid, softmax
from affinage.errors import InputError
from affinage.runtime.answers.base import Loaded
from affinage.runtime.facts import ModelFacts
from affinage.runtime.inputs import check_pair, check_text

FUNCTIONS: dict[str, Callable[[Any], Floats]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "none": lambda logits: np.asarray(logits, np.float64),
}
"""`function_to_apply` -> what makes scores of logits (C,)"""
Only = Literal["best"]
"""of `top_k`: one result instead of a list of them"""


def check(value: Any, where: str) -> str | tuple[str, str]:
    """A text, or a pair as {"text", "text_pair"} or (text, text pair). Raises: InputError."""
    if isinstance(value, Mapping) and set(value) == {"text"}:
        return check_text(value["text"], where)
    if isinstance(value, str):
        return check_text(value, where)
    return check_pair(value, where, keys=("text", "text_pair"))


def function_of(facts: ModelFacts, name: str | None) -> Callable[[Any], Floats]:
    """What makes scores: the function asked for, else the one that the model's problem has. Raises: InputError."""
    if name is None:
        several = len(facts.labels) > 1
        kinds = {"regression": "none", "multi_label_classification": "sigmoid"}
        name = kinds.get(facts.problem_type or "", "softmax" if several else "sigmoid")
    if name.lower() not in FUNCTIONS:
        raise InputError(f"function_to_apply '{name}': expected {', '.join(FUNCTIONS)}")
    return FUNCTIONS[name.lower()]


def classify(
    loaded: Loaded,
    inputs: list[str | tuple[str, str]],
    *,
    batch_size: int,
    top_k: int | Only | None = "best",
    function_to_apply: str | None = None,
    max_length: int | None = None,
) -> list[Label | list[Label]]:
    """For every input the best label or, with `top_k`, so many of them; None: all."""
    facts, scores_of = loaded.facts, function_of(loaded.facts, function_to_apply)
    found: list[Label | list[Label]] = [[]] * len(inputs)
    length = min(facts.max_length, max_length or facts.max_length)
    for paired in (False, True):
        places = [i for i, given in enumerate(inputs) if isinstance(given, tuple) == paired]
        chosen: Any = [inputs[i] for i in places]
        rows = loaded.rows(chosen, max_length=length)
        for i, (logits,) in loaded.engine.logits(rows, batch_size=batch_size):
            scores = scores_of(logits)
            order = np.argsort(-scores, kind="stable")
            ranked: list[Label] = [{"label": facts.labels[k], "score": float(scores[k])} for k in order]
            found[places[i]] = ranked[0] if top_k == "best" else ranked[:top_k]
    return found
