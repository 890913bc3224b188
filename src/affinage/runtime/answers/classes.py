"""One class of a text or a pair of texts, any number of classes, or a number."""

from dataclasses import dataclass
from typing import Any

from affinage.decoding.labels import Label, holding_labels, ranked_labels, sigmoid
from affinage.runtime.answers.base import Loaded, Options, Result, cut, top
from affinage.runtime.inputs import check_pair, check_text


def premise_hypothesis(value: Any, where: str) -> tuple[str, str]:
    """A pair as the NLI tasks name it. Raises: InputError."""
    return check_pair(value, where, keys=("premise", "hypothesis"))


@dataclass(frozen=True)
class Classes:
    """label, score: of a text (kind "sequence") or of (premise, hypothesis) (kind "pair")."""

    loaded: Loaded

    def check(self, value: Any, where: str) -> str | tuple[str, str]:
        if self.loaded.facts.kind == "pair":
            return premise_hypothesis(value, where)
        return check_text(value, where)

    def answer(self, inputs: list[Any], options: Options) -> list[Result]:
        facts = self.loaded.facts
        rows = self.loaded.rows(inputs)
        results: list[Result] = [{}] * len(rows)
        for i, (logits,) in self.loaded.engine.logits(rows, batch_size=options.batch_size):
            ranked = ranked_labels(logits, facts.labels)
            results[i] = {**ranked[0], **top(ranked, options.top_k), **cut(rows[i])}
        return results


@dataclass(frozen=True)
class Labels:
    """labels, scores: those that hold, the probability of each for itself being 0.5 or more."""

    loaded: Loaded

    def check(self, value: Any, where: str) -> str:
        return check_text(value, where)

    def answer(self, inputs: list[str], options: Options) -> list[Result]:
        facts = self.loaded.facts
        rows = self.loaded.rows(inputs)
        results: list[Result] = [{}] * len(rows)
        for i, (logits,) in self.loaded.engine.logits(rows, batch_size=options.batch_size):
            holding = holding_labels(logits, facts.labels)
            found = {"labels": [name for name, _ in holding], "scores": [score for _, score in holding]}
            every: list[Label] = [
                {"label": name, "score": float(p)} for name, p in zip(facts.labels, sigmoid(logits), strict=True)
            ]
            ranked = sorted(every, key=lambda one: -one["score"])
            results[i] = {**found, **top(ranked, options.top_k), **cut(rows[i])}
        return results


@dataclass(frozen=True)
class Values:
    """value: a number for a text or a pair, whichever the model's task has; of no known task, either."""

    loaded: Loaded

    def check(self, value: Any, where: str) -> str | tuple[str, str]:
        texts = self.loaded.facts.texts
        single = isinstance(value, str) if texts is None else texts == 1
        return check_text(value, where) if single else premise_hypothesis(value, where)

    def answer(self, inputs: list[Any], options: Options) -> list[Result]:
        results: list[Result] = [{}] * len(inputs)
        for paired in (False, True):
            places = [i for i, given in enumerate(inputs) if isinstance(given, tuple) == paired]
            chosen = [inputs[i] for i in places]
            rows = self.loaded.rows(chosen)
            for i, (logits,) in self.loaded.engine.logits(rows, batch_size=options.batch_size):
                results[places[i]] = {"value": float(logits[0]), **cut(rows[i])}
        return results
