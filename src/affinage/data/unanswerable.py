"""Questions without an answer, made from answerable ones: each moved to a paragraph nearby that does not hold it.

SQuAD 2.0's training set is people's work; where it cannot be had, this stands in for it. What a model learns from it is
to see that a paragraph is not the one asked about, which is easier than SQuAD 2.0's questions made to mislead.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 5
"""Paragraphs before and after one, in the order of the file, that count as its article where no title says so."""


@dataclass(frozen=True)
class Question:
    """A question of SQuAD's form."""

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]
    title: str | None = None
    """its article"""


def moved_questions(questions: Sequence[Question], *, share: float, seed: int) -> Iterator[Question]:
    """Some of `questions`, without answers, in other paragraphs: so many that they are `share` of both together.

    Drawn by `seed`. Of the article's paragraphs that hold none of the accepted answers (without case, as whole words),
    a question goes to the one that shares most words with it, the nearest of several; where there is none it is left
    out. Paragraphs of an article are those of its title, else `NEIGHBOURS` before and after.
    """
    contexts = list(dict.fromkeys(question.context for question in questions))
    place = {context: i for i, context in enumerate(contexts)}
    title = {question.context: question.title for question in questions}
    folded = [f" {_words(context)} " for context in contexts]
    bags = [frozenset(text.split()) for text in folded]
    articles: dict[str, list[int]] = {}
    for i, context in enumerate(contexts):
        articles.setdefault(title[context] or "", []).append(i)
    wanted = round(len(questions) * share / (1 - share))
    for index in np.random.default_rng(seed).permutation(len(questions)):
        if not wanted:
            return
        question = questions[index]
        here = place[question.context]
        near = range(max(0, here - NEIGHBOURS), min(len(contexts), here + NEIGHBOURS + 1))
        candidates = articles[question.title] if question.title else [i for i in near if not title[contexts[i]]]
        answers = [_words(text) for text, _ in question.answers]
        free = [i for i in candidates if i != here and not any(f" {a} " in folded[i] for a in answers if a)]
        if free and any(answers):
            asked = set(_words(question.question).split())
            to = max(free, key=lambda i: (len(asked & bags[i]), -abs(i - here)))
            yield Question(f"{question.id}-moved", question.question, contexts[to], (), question.title)
            wanted -= 1


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
