"""Which spans of a context answer a question, from start and end logits over one or more windows.

Letters: T tokens of a window.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from affinage.decoding.labels import softmax


@dataclass(frozen=True)
class SpanWindow:
    """What a model said about one window of the context; its first token is <cls>."""

    start_logits: NDArray[np.floating]
    """(T,)"""
    end_logits: NDArray[np.floating]
    """(T,)"""
    offsets: NDArray[np.int64]
    """(T, 2) characters in the whole context; empty for a token that stands for no visible character"""
    in_context: NDArray[np.bool_]
    """(T,) True on the tokens of the context: neither question nor special"""


class Answer(TypedDict):
    """An answer; `answer == context[start:end]`, all empty where the model says that there is none. `score`: its
    probability, in [0, 1], among the candidates that were compared.
    """

    answer: str
    score: float
    start: int
    end: int


def best_answers(
    windows: Sequence[SpanWindow],
    context: str,
    *,
    n_best: int = 20,
    max_answer_length: int = 50,
    allow_no_answer: bool = False,
    no_answer_threshold: float = 0.0,
) -> list[Answer]:
    """The `n_best` answers, best first; every span of up to `max_answer_length` context tokens is a candidate.

    A span scores start logit + end logit; the same characters found in several windows count once, with their best
    score. "No answer", if allowed, scores start + end logit of <cls>, the lowest over the windows (each of them must
    say so), less `no_answer_threshold`: the higher that is, the fewer questions go without. Probabilities are the
    softmax of the scores over the answers returned.

    Devlin et al. 2019 (BERT), section 4.2 and 4.3.
    """
    scores = _span_scores(windows, n_best, max_answer_length)
    if windows and (allow_no_answer or not scores):
        scores[0, 0] = _no_answer_score(windows) - no_answer_threshold
    best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:n_best]
    if not best:
        return []
    probabilities = softmax(np.array([score for _, score in best]))
    return [
        {"answer": context[start:end], "score": float(p), "start": start, "end": end}
        for ((start, end), _), p in zip(best, probabilities, strict=True)
    ]


def no_answer_margin(windows: Sequence[SpanWindow], *, max_answer_length: int = 50) -> float:
    """Score of "no answer" - score of the best span, as `best_answers` counts them: above the threshold there is none.

    Infinite where no span can be an answer.
    """
    spans = _span_scores(windows, 1, max_answer_length)
    return _no_answer_score(windows) - max(spans.values()) if spans else np.inf


def _span_scores(windows: Sequence[SpanWindow], n_best: int, max_answer_length: int) -> dict[tuple[int, int], float]:
    """(start, end) characters -> best score over the windows."""
    scores: dict[tuple[int, int], float] = {}
    for window in windows:
        for span, score in _candidates(window, n_best, max_answer_length):
            scores[span] = max(score, scores.get(span, -np.inf))
    return scores


def _no_answer_score(windows: Sequence[SpanWindow]) -> float:
    return min(float(w.start_logits[0]) + float(w.end_logits[0]) for w in windows)


def _candidates(window: SpanWindow, n_best: int, max_answer_length: int) -> list[tuple[tuple[int, int], float]]:
    """The best spans of one window as ((start, end) characters, score)."""
    tokens = np.flatnonzero(window.in_context & (window.offsets[:, 1] > window.offsets[:, 0]))
    if not len(tokens):
        return []
    start = window.start_logits[tokens].astype(np.float64)
    end = window.end_logits[tokens].astype(np.float64)
    # Row l: the spans that are l + 1 tokens long. No top-k of starts and of ends apart, which can leave no valid pair.
    table = np.full((min(max_answer_length, len(tokens)), len(tokens)), -np.inf)
    for length in range(len(table)):
        table[length, : len(tokens) - length] = start[: len(tokens) - length] + end[length:]
    flat = table.ravel()
    kept = np.argpartition(-flat, min(n_best, len(flat)) - 1)[:n_best]
    lengths, firsts = np.unravel_index(kept[np.isfinite(flat[kept])], table.shape)
    begins = window.offsets[tokens[firsts], 0]
    stops = window.offsets[tokens[firsts + lengths], 1]
    return [((int(a), int(b)), float(table[n, f])) for a, b, n, f in zip(begins, stops, lengths, firsts, strict=True)]
