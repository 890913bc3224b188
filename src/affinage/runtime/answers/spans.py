"""Answers to questions: spans of a context of any length."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from affinage.data.encoding import encode_questions, longest_question, template_of
from affinage.decoding.spans import SpanWindow, best_answers
from affinage.errors import InputError
from affinage.runtime.answers.base import Loaded, Options, Result, top
from affinage.runtime.inputs import check_pair

_COMPARED = 20
"""answers among which probabilities are shared out, or as many as are asked for"""


@dataclass(frozen=True)
class Spans:
    """answer, score, start, end."""

    loaded: Loaded

    def check(self, value: Any, where: str) -> tuple[str, str]:
        question, context = check_pair(value, where, keys=("question", "context"))
        length = len(self.loaded.tokenizer.encode(question, add_special_tokens=False).ids)
        if length > self._longest:
            raise InputError(
                f"{where}, question: {length} tokens; this model reads {self.loaded.facts.max_length} at a time, of "
                f"which a question may have {self._longest}: ask a shorter question"
            )
        return question, context

    @cached_property
    def _longest(self) -> int:
        return longest_question(template_of(self.loaded.tokenizer, 2), self.loaded.facts.max_length)

    def answer(self, inputs: list[tuple[str, str]], options: Options) -> list[Result]:
        facts = self.loaded.facts
        questions, contexts = [q for q, _ in inputs], [c for _, c in inputs]
        rows = encode_questions(
            self.loaded.tokenizer,
            questions,
            contexts,
            max_length=facts.max_length,
            stride=facts.max_length // 4,
        )
        windows: list[list[SpanWindow]] = [[] for _ in inputs]
        for i, (start, end) in self.loaded.engine.logits(rows, batch_size=options.batch_size):
            row = rows[i]
            windows[row.example].append(SpanWindow(start, end, row.offsets, row.sequence_ids == 1))
        threshold, count = facts.no_answer_threshold, max(_COMPARED, options.top_k or 0)
        ranked = (
            best_answers(
                w, c, n_best=count, allow_no_answer=threshold is not None, no_answer_threshold=threshold or 0.0
            )
            for w, c in zip(windows, contexts, strict=True)
        )
        return [{**answers[0], **top(answers, options.top_k)} for answers in ranked]
