"""Embeddings: a vector for each text."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinage.decoding.vectors import unit
from affinage.runtime.answers.base import Loaded, Options, Result, cut
from affinage.runtime.inputs import check_text


@dataclass(frozen=True)
class Vectors:
    """embedding: a list of numbers."""

    loaded: Loaded

    def check(self, value: Any, where: str) -> str:
        return check_text(value, where)

    def answer(self, inputs: list[str], options: Options) -> list[Result]:
        facts = self.loaded.facts
        normalize = facts.normalize if options.normalize is None else options.normalize
        texts = [facts.prompt + text for text in inputs] if facts.prompt else inputs
        rows = self.loaded.rows(texts)
        found: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(rows)
        for i, (vector,) in self.loaded.engine.logits(rows, batch_size=options.batch_size):
            found[i] = vector
        vectors = unit(np.stack(found)) if normalize else np.stack(found)
        return [{"embedding": vector, **cut(row)} for vector, row in zip(vectors.tolist(), rows, strict=True)]
