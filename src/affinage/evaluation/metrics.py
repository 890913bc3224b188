"""How well predictions match references: each metric as sums over examples, so that a resample costs a matrix product.

A metric turns n examples into statistics (n, k) and the sums of their columns (k,) into one score in [0, 1]. Columns
are always sums over examples, and a score depends on nothing else.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinage.decoding.entities import bio_chunks
from affinage.errors import InputError, unknown

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A named score. `statistics`: predictions and references, n each -> (n, k); `aggregate`: (..., k) -> (...)."""

    name: str
    statistics: Callable[[Sequence[Any], Sequence[Any]], Floats]
    aggregate: Callable[[Floats], Floats]
    summary: str

    def rows(self, predictions: Sequence[Any], references: Sequence[Any]) -> Floats:
        """(n, k) statistics. Raises: InputError where there is nothing to compare, or the lengths differ."""
        if not len(references) or len(predictions) != len(references):
            raise InputError(f"{self.name}: {len(predictions)} predictions for {len(references)} references")
        return self.statistics(predictions, references)

    def score(self, predictions: Sequence[Any], references: Sequence[Any]) -> float:
        """The score over all examples, in [0, 1]."""
        return float(self.aggregate(self.rows(predictions, references).sum(axis=0)))


def metric(name: str) -> Metric:
    """The metric called `name`. Raises: InputError with the nearest name if there is none."""
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


def _class_counts(predictions: Sequence[Any], references: Sequence[Any]) -> Floats:
    """(n, 3C): for each class that occurs, whether it was both, predicted, the reference."""
    classes = {c: i for i, c in enumerate(sorted({*predictions, *references}, key=str))}
    rows = np.zeros((len(references), len(classes), 3))
    for row, predicted, reference in zip(rows, predictions, references, strict=True):
        row[classes[predicted], 1] += 1
        row[classes[reference], 2] += 1
        row[classes[reference], 0] += predicted == reference
    return rows.reshape(len(references), -1)


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


_PUNCTUATION = str.maketrans("", "", string.punctuation)
_FRENCH_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "«»“”„‘’…–—‹›", " "))


def normalise_answer(text: str) -> str:
    """The official SQuAD normalisation: lower case, no ASCII punctuation, no English article, single spaces."""
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def normalise_french_answer(text: str) -> str:
    """The same for French: punctuation, French quotation marks and dashes too, becomes a space (so l'État is two
    words), then the articles le la les l' un une des du au aux and the elided d' are left out.

    Original: SQuAD's own leaves French articles in. Scores under it are named `_fr` and compare with nothing published.
    """
    text = text.lower().translate(_FRENCH_PUNCTUATION)
    return " ".join(re.sub(r"\b(le|la|les|l|un|une|des|du|au|aux|d)\b", " ", text).split())


def _exact(normalise: Callable[[str], str]) -> Callable[[str, Sequence[str]], float]:
    """1 where the prediction equals one of the answers, once normalised; no answer at all counts as the empty one."""

    def value(prediction: str, answers: Sequence[str]) -> float:
        return float(normalise(prediction) in {normalise(a) for a in answers or ("",)})

    return value


def _token_f1(normalise: Callable[[str], str]) -> Callable[[str, Sequence[str]], float]:
    """Best F1 over the answers between the multisets of words; where one side is empty, 1 if both are (SQuAD 2.0)."""

    def one(predicted: list[str], answer: list[str]) -> float:
        if not predicted or not answer:
            return float(predicted == answer)
        common = (Counter(predicted) & Counter(answer)).total()
        return 2 * common / (len(predicted) + len(answer))

    def value(prediction: str, answers: Sequence[str]) -> float:
        predicted = normalise(prediction).split()
        return max(one(predicted, normalise(a).split()) for a in answers or ("",))

    return value


def _table(*metrics: Metric) -> dict[str, Metric]:
    return {m.name: m for m in metrics}


METRICS: dict[str, Metric] = _table(
    Metric("accuracy", _valued(lambda p, r: float(p == r)), _mean, "share of examples with the right class"),
    Metric("macro_f1", _class_counts, _macro, "mean over classes of the class's F1 (scikit-learn's definition)"),
    Metric("entity_f1", _entity_counts, _overlap, "F1 over whole entities, all types together (seqeval, default mode)"),
    Metric(
        "token_overlap_f1",
        _entity_word_counts,
        _overlap,
        "F1 over the words of entities, type and place matching (DistilCamemBERT article, section 4.2; the average "
        "over all words is ours, the article does not say)",
    ),
    Metric("exact_match", _valued(_exact(normalise_answer)), _mean, "SQuAD exact match, best over the answers"),
    Metric("f1", _valued(_token_f1(normalise_answer)), _mean, "SQuAD word-overlap F1, best over the answers"),
    Metric("exact_match_fr", _valued(_exact(normalise_french_answer)), _mean, "exact match, French articles left out"),
    Metric("f1_fr", _valued(_token_f1(normalise_french_answer)), _mean, "word-overlap F1, French articles left out"),
)
"""name -> metric. References: a class; the tags of a sentence; the accepted answers of a question."""
