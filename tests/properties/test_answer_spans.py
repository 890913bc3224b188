"""Answers against a search through every span, on random logits."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from affinage.decoding.spans import SpanWindow, best_answers

CONTEXT = "é😀 l'e\u0301té ñandú, « 12 » fin"
SIZE = st.integers(1, len(CONTEXT) - 1)


@given(st.integers(0, 10_000), SIZE, st.integers(1, 8), st.integers(1, 6))
def test_the_n_best_are_those_of_a_search_through_every_span(seed: int, tokens: int, longest: int, n_best: int) -> None:
    random = np.random.default_rng(seed)
    cuts = np.sort(random.choice(np.arange(1, len(CONTEXT)), tokens, replace=False))
    offsets = np.stack([np.concatenate([[0], cuts[:-1]]), cuts], axis=1)
    start, end = random.normal(size=(2, tokens + 1))
    window = SpanWindow(start, end, np.concatenate([[[0, 0]], offsets]), np.arange(tokens + 1) > 0)
    every = [
        (start[i + 1] + end[j + 1], int(offsets[i, 0]), int(offsets[j, 1]))
        for i in range(tokens)
        for j in range(i, min(i + longest, tokens))
    ]
    expected = [(a, b) for _, a, b in sorted(every, reverse=True)[:n_best]]
    found = best_answers([window], CONTEXT, n_best=n_best, max_answer_length=longest)
    assert [(a["start"], a["end"]) for a in found] == expected
    assert all(a["answer"] == CONTEXT[a["start"] : a["end"]] for a in found)
    assert abs(sum(a["score"] for a in found) - 1) < 1e-9
