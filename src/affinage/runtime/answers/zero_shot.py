"""Labels that a model never saw, by an entailment model: texts times labels are rows like others, batched together."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from affinage.data.encoding import Row
from affinage.decoding.zero_shot import fill_template, nli_classes, zero_shot_method
from affinage.errors import InputError
from affinage.runtime.answers.base import Loaded, Options, Result, cut
from affinage.runtime.inputs import check_labels, check_text

ROWS = 4096
"""pairs of a text and a label that are held at once"""


@dataclass(frozen=True)
class ZeroShot:
    """sequence, labels, scores: the labels best first; `top_k` of them."""

    loaded: Loaded

    def check(self, value: Any, where: str) -> str:
        return check_text(value, where)

    def answer(self, inputs: list[str], options: Options) -> list[Result]:
        facts = self.loaded.facts
        if facts.kind != "pair":
            raise InputError(f"labels need a model of text pairs (NLI); this is a {facts.kind} model")
        score, classes = zero_shot_method(options.method), nli_classes(facts.labels)
        candidates = check_labels(options.labels)
        hypotheses = [fill_template(options.template, label) for label in candidates]
        results: list[Result] = []
        at_once = max(1, ROWS // len(hypotheses))
        for start in range(0, len(inputs), at_once):
            texts = inputs[start : start + at_once]
            pairs = [(text, hypothesis) for text in texts for hypothesis in hypotheses]
            rows = self.loaded.rows(pairs)
            logits = self._logits(rows, options).reshape(len(texts), len(candidates), -1)
            for k, (text, theirs) in enumerate(zip(texts, logits, strict=True)):
                scores = score(theirs, classes)
                order = np.argsort(-scores, kind="stable")[: options.top_k]
                ranked = {"labels": [candidates[i] for i in order], "scores": [float(scores[i]) for i in order]}
                own = rows[k * len(candidates) : (k + 1) * len(candidates)]
                results.append({"sequence": text, **ranked, **cut(*own)})
        return results

    def _logits(self, rows: list[Row], options: Options) -> Any:
        """(rows, C)"""
        found = np.zeros((len(rows), len(self.loaded.facts.labels)), np.float32)
        for i, (logits,) in self.loaded.engine.logits(rows, batch_size=options.batch_size):
            found[i] = logits
        return found
