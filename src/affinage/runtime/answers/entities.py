"""Named entities, with the characters at which they stand, of texts of any length."""

from dataclasses import dataclass
from typing import Any

from affinage.data.encoding import encode_windows, first_token_of_words
from affinage.data.words import split_words
from affinage.decoding.entities import find_entities, words_over_windows
from affinage.runtime.answers.base import Loaded, Options, Result
from affinage.runtime.inputs import check_text


@dataclass(frozen=True)
class Entities:
    """entities: entity_group, score, word, start, end; `word` is the text between `start` and `end`."""

    loaded: Loaded

    def check(self, value: Any, where: str) -> str:
        return check_text(value, where)

    def answer(self, inputs: list[str], options: Options) -> list[Result]:
        facts = self.loaded.facts
        rows = encode_windows(self.loaded.tokenizer, inputs, max_length=facts.max_length, stride=facts.max_length // 4)
        spans = [split_words(text) for text in inputs]
        windows: list[list[tuple[Any, Any]]] = [[] for _ in inputs]
        for i, (logits,) in self.loaded.engine.logits(rows, batch_size=options.batch_size):
            example = rows[i].example
            windows[example].append((first_token_of_words(rows[i], spans[example]), logits))
        results: list[Result] = []
        for text, words, seen_in in zip(inputs, spans, windows, strict=True):
            probabilities, seen = words_over_windows(seen_in, words=len(words), classes=len(facts.labels))
            results.append({"entities": find_entities(text, words, probabilities, seen, facts.labels)})
        return results
