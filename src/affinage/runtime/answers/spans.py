"""Answers to questions: spans of a context of any length."""

from dataclasses import dataclass
from typing import Any

from affinage.data.encoding import encode_questions
from affinage.decoding.spans import SpanWindow, best_answers
from affinage.runtime.answers.base import Loaded, Options, Result, top
from affinage.runtime.inputs import check_pair


@dataclass(frozen=True)
class Spans:
    """answer, score, start, end."""

    loaded: Loaded

    def check(self, value: Any, where: str) -> tuple[str, str]:
        return check_pair(value, where, keys=("question", "context"))

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
        threshold = facts.no_answer_threshold
        ranked = (
            best_answers(w, c, allow_no_answer=threshold is not None, no_answer_threshold=threshold or 0.0)
            for w, c in zip(windows, contexts, strict=True)
        )
        return [{**answers[0], **top(answers, options.top_k)} for answers in ranked]
