"""How well a model does on the examples of a task: rows through the model, decoded, scored with intervals."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from affinage.data.collate import pad_rows
from affinage.data.encoding import Row, first_token_of_words
from affinage.data.examples import (
    Example,
    MultiLabelExample,
    PairExample,
    RegressionExample,
    SpanExample,
    TextExample,
    TokenExample,
)
from affinage.data.features import Fitted, encode, fitted
from affinage.data.task import Task
from affinage.data.words import join_words
from affinage.decoding.entities import word_tags, words_over_windows
from affinage.decoding.labels import holding_labels
from affinage.decoding.spans import SpanWindow, best_answers, no_answer_margin
from affinage.evaluation.example_scores import PartScores, references_fingerprint
from affinage.evaluation.intervals import bootstrap_interval
from affinage.evaluation.metrics import metric
from affinage.evaluation.no_answer import best_threshold
from affinage.models.checkpoint import label_names, no_answer_threshold
from affinage.report.report import Score

Prediction = str | float | tuple[str, ...]
"""A label; a number; every label that holds, sorted; the tags of a sentence; the text of an answer (empty: none)."""
Reference = str | float | tuple[str, ...]
"""As a prediction; of a question every accepted answer (empty: the context holds none)."""
Logits = tuple[NDArray[np.float32], ...]
"""What a model said of one row: (C,) of classes; (1,) of a number; (T, C) of tags; (T,) twice of a span."""


@dataclass(frozen=True)
class Evaluation:
    """What a model predicted and how good that is."""

    scores: tuple[Score, ...]
    predictions: tuple[Prediction, ...]
    """one an example, in their order"""
    fitted: Fitted
    """examples that were longer than a row"""
    examples: PartScores
    """what every example adds to every metric, for `examples.json`"""

    @property
    def truncated(self) -> int:
        """Examples whose end the model did not see."""
        return self.fitted.truncated


def evaluate_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    task: Task,
    examples: Sequence[Example],
    *,
    max_length: int,
    stride: int,
    batch_size: int = 32,
    name: str = "model",
    split: str | None = None,
    seeds: tuple[int, ...] = (),
) -> Evaluation:
    """The scores of `model` on `examples` for every metric of the task, with 95 % bootstrap intervals.

    `name`, `split` and `seeds` go into the scores. Labels in the examples are the model's own.
    """
    rows = encode(tokenizer.backend_tokenizer, examples, max_length=max_length, stride=stride)
    predicted = predict_rows(model, examples, rows, pad_id=pad_id(tokenizer), batch_size=batch_size)
    scores, statistics = score_predictions(task, predicted, references(examples), name=name, split=split, seeds=seeds)
    return Evaluation(scores, tuple(predicted), fitted(rows), statistics)


def score_predictions(
    task: Task,
    predicted: Sequence[Prediction],
    expected: Sequence[Reference],
    *,
    name: str,
    split: str | None = None,
    seeds: tuple[int, ...] = (),
) -> tuple[tuple[Score, ...], PartScores]:
    """The scores of predictions, whoever made them, for every metric of the task, and what each example adds to them.

    `name`, `split` and `seeds` go into the scores.
    """
    scores, rows = [], {}
    for measure in map(metric, task.metrics):
        found = measure.rows(predicted, expected)
        if not len(found):  # of questions without an answer, where there is none
            continue
        rows[measure.name] = found
        low, high = bootstrap_interval(measure, predicted, expected)
        scores.append(
            Score(
                model=name,
                task=task.name,
                metric=measure.name,
                value=measure.score(predicted, expected),
                low=low,
                high=high,
                n=len(found),
                seeds=seeds,
                baseline=_majority(expected) if measure.name == "accuracy" else None,
                split=split,
            )
        )
    return tuple(scores), PartScores(references_fingerprint(expected), rows)


def predict_rows(
    model: PreTrainedModel,
    examples: Sequence[Example],
    rows: Sequence[Row],
    *,
    pad_id: int,
    batch_size: int = 32,
) -> list[Prediction]:
    """What the model predicts for every example, from its rows (`data.features.encode`)."""
    names = model_labels(model)
    threshold = no_answer_threshold(model.config)
    windows = _windows(model, len(examples), rows, pad_id=pad_id, batch_size=batch_size)
    if threshold is None and any(isinstance(e, SpanExample) and not e.answers for e in examples):
        threshold = 0.0
    predicted: list[Prediction] = []
    for example, seen in zip(examples, windows, strict=True):
        match example:
            case TextExample() | PairExample():
                predicted.append(names[int(seen[0][1][0].argmax())])
            case MultiLabelExample():
                predicted.append(tuple(sorted(name for name, _ in holding_labels(seen[0][1][0], names))))
            case RegressionExample():
                predicted.append(float(seen[0][1][0][0]))
            case TokenExample():
                predicted.append(_tags(example, seen, names))
            case SpanExample():
                predicted.append(_answer(example, seen, threshold))
    return predicted


def tuned_no_answer_threshold(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[SpanExample],
    *,
    max_length: int,
    stride: int,
    batch_size: int = 32,
) -> float:
    """The threshold for `best_answers` with which these questions score highest, by F1 (`decoding.spans`)."""
    rows = encode(tokenizer.backend_tokenizer, examples, max_length=max_length, stride=stride)
    windows = _windows(model, len(examples), rows, pad_id=pad_id(tokenizer), batch_size=batch_size)
    margins = [no_answer_margin(_span_windows(seen)) for seen in windows]
    answers = [_answer(example, seen, None) for example, seen in zip(examples, windows, strict=True)]
    expected = references(examples)
    f1 = metric("f1")
    return best_threshold(
        np.array(margins), f1.rows(answers, expected)[:, 0], f1.rows([""] * len(answers), expected)[:, 0]
    )


def _windows(
    model: PreTrainedModel, examples: int, rows: Sequence[Row], *, pad_id: int, batch_size: int
) -> list[list[tuple[Row, Logits]]]:
    """Of every example its rows, in their order, and what the model says of each."""
    windows: list[list[tuple[Row, Logits]]] = [[] for _ in range(examples)]
    for index, logits in sorted(_forward(model, rows, pad_id=pad_id, batch_size=batch_size), key=lambda pair: pair[0]):
        windows[rows[index].example].append((rows[index], logits))
    return windows


def references(examples: Sequence[Example]) -> list[Reference]:
    """What should be predicted for every example."""
    expected: list[Reference] = []
    for example in examples:
        match example:
            case TextExample() | PairExample():
                expected.append(example.label)
            case MultiLabelExample():
                expected.append(example.labels)
            case RegressionExample():
                expected.append(example.value)
            case TokenExample():
                expected.append(example.tags)
            case SpanExample():
                expected.append(tuple(text for text, _ in example.answers))
    return expected


def model_labels(model: PreTrainedModel) -> list[str]:
    """Names of the model's classes, in its order."""
    return label_names(model.config)


def takes_types(model: PreTrainedModel) -> bool:
    """Whether the model tells a first text from a second by token type ids."""
    return getattr(model.config, "type_vocab_size", 0) > 1


def pad_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The id that fills rows up; `load_tokenizer` has made sure that there is one."""
    return int(tokenizer.pad_token_id)


def _forward(
    model: PreTrainedModel, rows: Sequence[Row], *, pad_id: int, batch_size: int
) -> Iterator[tuple[int, Logits]]:
    """Index and logits of every row, longest first: rows of like length share a batch, and what does not fit in memory
    is found out at once.
    """
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].input_ids))
    model.eval()
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = pad_rows([rows[i] for i in chosen], pad_id=pad_id, with_types=takes_types(model))
        with torch.inference_mode():
            output = model(**{key: value.to(model.device) for key, value in batch.items()})
        tensors = [output.start_logits, output.end_logits] if "start_logits" in output else [output.logits]
        arrays = [tensor.float().cpu().numpy() for tensor in tensors]
        per_token = len(arrays) == 2 or arrays[0].ndim == 3
        for place, index in enumerate(chosen):
            length = len(rows[index].input_ids)
            yield index, tuple(a[place, :length].copy() if per_token else a[place] for a in arrays)


def _tags(example: TokenExample, windows: Sequence[tuple[Row, Logits]], names: Sequence[str]) -> tuple[str, ...]:
    _, spans = join_words(example.words)
    seen = [(first_token_of_words(row, spans), logits[0]) for row, logits in windows]
    probabilities, covered = words_over_windows(seen, words=len(spans), classes=len(names))
    return tuple(word_tags(probabilities, covered, names))


def _answer(example: SpanExample, windows: Sequence[tuple[Row, Logits]], threshold: float | None) -> str:
    best = best_answers(
        _span_windows(windows),
        example.context,
        n_best=1,
        allow_no_answer=threshold is not None,
        no_answer_threshold=threshold or 0.0,
    )
    return best[0]["answer"] if best else ""


def _span_windows(windows: Sequence[tuple[Row, Logits]]) -> list[SpanWindow]:
    return [SpanWindow(start, end, row.offsets, row.sequence_ids == 1) for row, (start, end) in windows]


def _majority(expected: Sequence[Reference]) -> float:
    """Share of the most frequent label: what a model gets that has learned nothing else."""
    return Counter(expected).most_common(1)[0][1] / len(expected)
