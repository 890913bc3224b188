"""How well predictions match references: each metric as sums over examples, so that a resample costs a matrix product.

A metric turns n examples into statistics (n, k) and the sums of their columns (k,) into one score in [0, 1], of a
correlation in [-1, 1]. Columns are always sums over examples, and a score depends on nothing else.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinage.decoding.entities import bio_chunks
from affinage.errors import InputError, unknown
from affinage.evaluation.answers import exact, normalise_answer, normalise_french_answer, token_f1
from affinage.evaluation.correlation import matthews, pearson, pearson_rows, spearman, spearman_rows

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A named score. `statistics`: predictions and references, n each -> (n, k); `aggregate`: (..., k) -> (...)."""

    name: str
    statistics: Callable[[Sequence[Any], Sequence[Any]], Floats]
    aggregate: Callable[[Floats], Floats]
    summary: str
    lowest: float = 0.0
    """the worst score; the best is 1"""
    of_some: bool = False
    """whether it is about some of the examples only, and has rows of no others"""

    def rows(self, predictions: Sequence[Any], references: Sequence[Any]) -> Floats:
        """(n, k) statistics; of fewer examples where a metric is about some of them only.

        Raises: InputError where there is nothing to compare, or the lengths differ.
        """
        if not len(references) or len(predictions) != len(references):
            raise InputError(f"{self.name}: {len(predictions)} predictions for {len(references)} references")
        return self.statistics(predictions, references)

    def score(self, predictions: Sequence[Any], references: Sequence[Any]) -> float:
        """The score over all examples, from `lowest` to 1."""
        return float(self.aggregate(self.rows(predictions, references).sum(axis=0)))


def metric(name: str) -> Metric:
    """The metric called `name`: one of `METRICS`, `f1:CLASS` (F1 of one class), or `mean(A, B)` (the mean of metrics).

    Raises: InputError with the nearest name if there is none.
    """
    if found := re.fullmatch(r"mean\((.+)\)", name):
        return _mean_of(name, tuple(part.strip() for part in found[1].split(",")))
    if name.startswith("f1:") and len(name) > 3:
        return _f1_of(name)
    if name not in METRICS:
        raise InputError(unknown("metric", name, METRICS))
    return METRICS[name]


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """Top / bottom, 0 where bottom is 0."""
    return np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=bottom > 0)


def _mean(sums: Floats) -> Floats:
    """(..., 2) sums of (value, 1) -> the mean value."""
    return _ratio(sums[..., 0], sums[..., 1])


def _overlap(sums: Floats) -> Floats:
    """(..., 3) sums of (common, predicted, reference) -> F1 = 2·common / (predicted + reference); 0 where all are 0."""
    return _ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


def _macro(sums: Floats) -> Floats:
    """(..., 3C) sums of (common, predicted, reference) for each class -> mean F1 over the classes that occur."""
    classes = sums.reshape(*sums.shape[:-1], -1, 3)
    occurs = classes[..., 1] + classes[..., 2] > 0
    return _ratio((_overlap(classes) * occurs).sum(axis=-1), occurs.sum(axis=-1).astype(np.float64))


def _valued(value: Callable[[Any, Any], float]) -> Callable[[Sequence[Any], Sequence[Any]], Floats]:
    """Statistics (value of the example, 1)."""

    def statistics(predictions: Sequence[Any], references: Sequence[Any]) -> Floats:
        return np.array([(value(p, r), 1.0) for p, r in zip(predictions, references, strict=True)])

    return statistics


def _where(value: Callable[[Any, Any], float], *, answered: bool) -> Callable[[Sequence[Any], Sequence[Any]], Floats]:
    """Statistics (value of the example, 1) of the questions that have an answer, or of those that have none: these
    alone count, and there may be none.
    """

    def statistics(predictions: Sequence[Any], references: Sequence[Any]) -> Floats:
        pairs = zip(predictions, references, strict=True)
        return np.array([(value(p, r), 1.0) for p, r in pairs if bool(r) == answered]).reshape(-1, 2)

    return statistics


def _class_counts(predictions: Sequence[Any], references: Sequence[Any]) -> Floats:
    """(n, 3C): for each class that occurs, whether it was both, predicted, the reference.

    A prediction or a reference is a class, or a tuple of all that hold.
    """
    pairs = [(_classes(p), _classes(r)) for p, r in zip(predictions, references, strict=True)]
    classes = {c: i for i, c in enumerate(sorted({c for pair in pairs for side in pair for c in side}, key=str))}
    rows = np.zeros((len(references), len(classes), 3))
    for row, (predicted, reference) in zip(rows, pairs, strict=True):
        for column, chosen in enumerate((predicted & reference, predicted, reference)):
            row[[classes[c] for c in chosen], column] = 1
    return rows.reshape(len(references), -1)


def _set_counts(predictions: Sequence[Any], references: Sequence[Any]) -> Floats:
    """(n, 3): classes of an example in both, predicted, in the reference."""
    pairs = ((_classes(p), _classes(r)) for p, r in zip(predictions, references, strict=True))
    return np.array([(len(p & r), len(p), len(r)) for p, r in pairs], np.float64)


def _classes(value: Any) -> set[Any]:
    return set(value) if isinstance(value, tuple) else {value}


@lru_cache
def _f1_of(name: str) -> Metric:
    """F1 of the class named after the colon."""
    chosen = name.partition(":")[2]

    def statistics(predictions: Sequence[Any], references: Sequence[Any]) -> Floats:
        pairs = ((chosen in _classes(p), chosen in _classes(r)) for p, r in zip(predictions, references, strict=True))
        return np.array([(p and r, p, r) for p, r in pairs], np.float64)

    return Metric(name, statistics, _overlap, f"F1 of the class {chosen} (scikit-learn's, with pos_label)")


@lru_cache
def _mean_of(name: str, parts: tuple[str, ...]) -> Metric:
    """The mean of metrics, each with its own columns. Raises: InputError where one is unknown, or there is one only."""
    metrics = [metric(part) for part in parts]
    widths = [_WIDTHS.get(m.aggregate) for m in metrics]
    if len(metrics) < 2 or None in widths:
        raise InputError(f"metric '{name}': the mean takes two or more of accuracy, f1:CLASS, pearson and spearman")
    ends = np.cumsum([width or 0 for width in widths])

    def statistics(predictions: Sequence[Any], references: Sequence[Any]) -> Floats:
        return np.concatenate([m.rows(predictions, references) for m in metrics], axis=1)

    def aggregate(sums: Floats) -> Floats:
        starts = [0, *ends[:-1]]
        each = [m.aggregate(sums[..., a:b]) for m, a, b in zip(metrics, starts, ends, strict=True)]
        return np.asarray(np.mean(each, axis=0))

    return Metric(
        name, statistics, aggregate, f"mean of {' and '.join(parts)}", float(np.mean([m.lowest for m in metrics]))
    )


def _entity_counts(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Floats:
    """(n, 3): entities with the same type and the same words in both, predicted, in the reference."""
    pairs = ((set(bio_chunks(p)), set(bio_chunks(r))) for p, r in _tag_pairs(predictions, references))
    return np.array([(len(p & r), len(p), len(r)) for p, r in pairs], np.float64)


def _entity_word_counts(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Floats:
    """(n, 3): words inside an entity of the same type in both, predicted, in the reference."""
    pairs = ((_entity_words(p), _entity_words(r)) for p, r in _tag_pairs(predictions, references))
    return np.array([(len(p & r), len(p), len(r)) for p, r in pairs], np.float64)


def _entity_words(tags: Sequence[str]) -> set[tuple[int, str]]:
    return {(i, kind) for kind, first, end in bio_chunks(tags) for i in range(first, end)}


def _tag_pairs(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> list[tuple[Sequence[str], Sequence[str]]]:
    pairs = list(zip(predictions, references, strict=True))
    for i, (p, r) in enumerate(pairs):
        if len(p) != len(r):
            raise InputError(f"sentence {i}: {len(p)} predicted tags for {len(r)} words")
    return pairs


_WIDTHS: dict[Callable[[Floats], Floats], int] = {_mean: 2, _overlap: 3, pearson: 6, spearman: 3}
"""columns that an aggregate takes, where their number does not depend on the classes"""


def _table(*metrics: Metric) -> dict[str, Metric]:
    return {m.name: m for m in metrics}


METRICS: dict[str, Metric] = _table(
    Metric("accuracy", _valued(lambda p, r: float(p == r)), _mean, "share of examples with the right class"),
    Metric("macro_f1", _class_counts, _macro, "mean over classes of the class's F1 (scikit-learn's definition)"),
    Metric("micro_f1", _set_counts, _overlap, "F1 over all labels of all texts together (scikit-learn's definition)"),
    Metric(
        "subset_accuracy", _valued(lambda p, r: float(p == r)), _mean, "share of texts with exactly the right labels"
    ),
    Metric("matthews", _class_counts, matthews, "Matthews' correlation of classes (scikit-learn's definition)", -1.0),
    Metric("pearson", pearson_rows, pearson, "Pearson's correlation of numbers", -1.0),
    Metric("spearman", spearman_rows, spearman, "Spearman's rank correlation of numbers, ties sharing ranks", -1.0),
    Metric("entity_f1", _entity_counts, _overlap, "F1 over whole entities, all types together (seqeval, default mode)"),
    Metric(
        "token_overlap_f1",
        _entity_word_counts,
        _overlap,
        "F1 over the words of entities, type and place matching (DistilCamemBERT article, section 4.2; the average "
        "over all words is ours, the article does not say)",
    ),
    Metric("exact_match", _valued(exact(normalise_answer)), _mean, "SQuAD exact match, best over the answers"),
    Metric("f1", _valued(token_f1(normalise_answer)), _mean, "SQuAD word-overlap F1, best over the answers"),
    Metric(
        "has_answer_f1",
        _where(token_f1(normalise_answer), answered=True),
        _mean,
        "SQuAD 2.0 HasAns F1: of the questions that have an answer",
        of_some=True,
    ),
    Metric(
        "has_answer_exact_match",
        _where(exact(normalise_answer), answered=True),
        _mean,
        "SQuAD 2.0 HasAns exact match",
        of_some=True,
    ),
    Metric(
        "no_answer_accuracy",
        _where(exact(normalise_answer), answered=False),
        _mean,
        "SQuAD 2.0 NoAns: share of the questions without an answer that get none (its F1 is its exact match)",
        of_some=True,
    ),
    Metric("exact_match_fr", _valued(exact(normalise_french_answer)), _mean, "exact match, French articles left out"),
    Metric("f1_fr", _valued(token_f1(normalise_french_answer)), _mean, "word-overlap F1, French articles left out"),
)
"""name -> metric. References: a class; every class that holds; a number; the tags of a sentence; the accepted
answers of a question."""
