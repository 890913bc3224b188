"""Text in, answer out: one face for every kind of fine-tuned model, and for masked language models."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from affinage.data.encoding import (
    Row,
    encode_pairs,
    encode_questions,
    encode_texts,
    encode_windows,
    first_token_of_words,
)
from affinage.data.pieces import BarePieces, starts_word
from affinage.data.words import split_words
from affinage.decoding.entities import find_entities, words_over_windows
from affinage.decoding.fill_mask import best_tokens
from affinage.decoding.labels import holding_labels, ranked_labels, sigmoid
from affinage.decoding.spans import SpanWindow, best_answers
from affinage.decoding.zero_shot import DEFAULT_TEMPLATE, fill_template, nli_classes, zero_shot_method
from affinage.errors import InputError
from affinage.runtime.facts import Engine, ModelFacts, ModelKind, agreed_kind, texts_of_task
from affinage.runtime.inputs import as_list, check_count, check_labels, check_pair, check_text
from affinage.runtime.onnx.config import GRAPH, is_exported, read_onnx_config, read_tokenizer
from affinage.runtime.onnx.session import OnnxEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Result = dict[str, Any]

_BLOCK = 512  # inputs encoded and decoded at a time: bounds memory whatever the length of the list
_MASK = "<mask>"


def load(name_or_path: str | Path, *, task: str | None = None, threads: int | None = None) -> "Predictor":
    """A predictor for a model folder or hub name, in float32, or for a folder that `affinage export` wrote, which needs
    neither torch nor transformers; its task is found in its config.

    `task`: insist on one ("sentiment", "ner", …, "fill-mask", "zero-shot"), for a config that does not say it.
    `threads`: of ONNX Runtime; None: what OMP_NUM_THREADS says, else the cores that the process may use.

    >>> predictor = load("runs/sentiment")  # doctest: +SKIP
    >>> predictor.predict("Un film magnifique.")  # doctest: +SKIP
    [{'label': 'positive', 'score': 0.98}]

    Raises: InputError where the model cannot be read, is not fine-tuned, or does another task.
    """
    if is_exported(name_or_path):
        return _load_exported(Path(name_or_path), task=task, threads=threads)
    from affinage.models.checkpoint import check_fit, load_masked_lm, load_task_model, load_tokenizer, read_config
    from affinage.models.flaubert_tokenizer import refuse_differing
    from affinage.runtime.kind import kind_of

    config = read_config(name_or_path)
    kind = kind_of(config, where=str(name_or_path), task=task)
    tokenizer = load_tokenizer(name_or_path)
    check_fit(tokenizer, config, where=name_or_path)
    refuse_differing(tokenizer, where=name_or_path, what="the runtime")
    model = load_masked_lm(name_or_path)[0] if kind == "fill_mask" else load_task_model(name_or_path, kind)
    return predictor_of(model, tokenizer, kind=kind, task=task)


def predictor_of(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", *, kind: ModelKind, task: str | None = None
) -> "Predictor":
    """A predictor for a loaded transformers model."""
    from affinage.runtime.engine import TorchEngine
    from affinage.runtime.kind import facts_of

    facts = facts_of(model, tokenizer, kind, task=task)
    engine = TorchEngine(model, pad_id=facts.pad_id, mask_id=facts.mask_id)
    return Predictor(engine, tokenizer.backend_tokenizer, facts)


def _load_exported(folder: Path, *, task: str | None, threads: int | None) -> "Predictor":
    facts: ModelFacts = read_onnx_config(folder)
    if task is not None:
        kind = agreed_kind(facts.kind, task=task, noted=facts.task, where=str(folder))
        facts = facts.model_copy(update={"kind": kind, "task": task, "texts": texts_of_task(task)})
    engine = OnnxEngine(folder / GRAPH, pad_id=facts.pad_id, mask_id=facts.mask_id, threads=threads)
    return Predictor(engine, read_tokenizer(folder), facts)


class Predictor:
    """An engine that makes logits, a tokenizer, and what is known of the model: `load` makes one."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, facts: ModelFacts) -> None:
        self.kind: ModelKind = facts.kind
        self._read_number = {None: _text_or_pair, 1: check_text, 2: _premise_hypothesis}[facts.texts]
        self.max_length = facts.max_length
        """tokens a row may have, special tokens included; longer texts are cut (and say so) or read in windows"""
        self.labels = facts.labels
        self._no_answer_threshold = facts.no_answer_threshold
        self._engine = engine
        self._encoder = tokenizer
        self._special_ids = facts.special_ids
        self._mask_id = facts.mask_id
        self._mask_token = None if facts.mask_id is None else tokenizer.id_to_token(facts.mask_id)

    def predict(
        self,
        inputs: Any,
        *,
        top_k: int | None = None,
        labels: Sequence[str] | None = None,
        template: str = DEFAULT_TEMPLATE,
        method: str = "entailment_logits",
        batch_size: int = 32,
    ) -> list[Result]:
        """One result an input, in the order of the inputs; keys as in transformers' pipelines.

        | model | an input | its result |
        |---|---|---|
        | sequence | text | label, score |
        | pair | (premise, hypothesis) | label, score |
        | multi_label | text | labels, scores (those that hold: probability 0.5 or more, of each for itself) |
        | regression | text, or (premise, hypothesis) | value |
        | pair, with `labels` | text | sequence, labels, scores (zero-shot; `template`, `method`) |
        | token | text | entities: entity_group, score, word, start, end |
        | span | {"question", "context"} | answer, score, start, end |
        | fill_mask | text with one <mask> | token_str, score, sequence |

        `top_k` adds "top", the k best (or keeps the k best zero-shot labels). A text or pair that the model could not
        read to its end gives "truncated": true; entities and answers are found in texts of any length.

        Raises: InputError naming the first input that cannot be used.
        """
        given = as_list(inputs)
        check_count(batch_size, "batch_size")
        if top_k is not None:
            check_count(top_k, "top_k")
        if labels is not None:
            if self.kind != "pair":
                raise InputError(f"labels need a model of text pairs (NLI); this is a {self.kind} model")
            return self._zero_shot(given, labels, template, method, top_k, batch_size)
        check, answer = {
            "sequence": (check_text, self._classify),
            "pair": (_premise_hypothesis, self._classify),
            "multi_label": (check_text, self._labels),
            "regression": (self._read_number, self._values),
            "token": (check_text, self._entities),
            "span": (_question_context, self._answers),
            "fill_mask": (self._masked, self._fill),
        }[self.kind]
        checked = [check(value, f"input {i + 1}") for i, value in enumerate(given)]  # all of them before any work
        results: list[Result] = []
        for start in range(0, len(checked), _BLOCK):
            results += answer(checked[start : start + _BLOCK], top_k, batch_size)  # type: ignore[operator]
        return results

    def _classify(self, inputs: list[Any], top_k: int | None, batch_size: int) -> list[Result]:
        encode = encode_texts if self.kind == "sequence" else encode_pairs
        rows = encode(self._encoder, inputs, max_length=self.max_length)
        results: list[Result] = [{}] * len(rows)
        for i, (logits,) in self._engine.logits(rows, batch_size=batch_size):
            ranked = ranked_labels(logits, self.labels)
            results[i] = {**ranked[0], **_top(ranked, top_k), **_cut(rows[i])}
        return results

    def _labels(self, texts: list[str], top_k: int | None, batch_size: int) -> list[Result]:
        rows = encode_texts(self._encoder, texts, max_length=self.max_length)
        results: list[Result] = [{}] * len(rows)
        for i, (logits,) in self._engine.logits(rows, batch_size=batch_size):
            holding = holding_labels(logits, self.labels)
            found = {"labels": [name for name, _ in holding], "scores": [score for _, score in holding]}
            every = zip(self.labels, sigmoid(logits), strict=True)
            ranked = sorted(({"label": name, "score": float(p)} for name, p in every), key=lambda one: -one["score"])  # type: ignore[operator]
            results[i] = {**found, **_top(ranked, top_k), **_cut(rows[i])}
        return results

    def _values(self, inputs: list[Any], top_k: int | None, batch_size: int) -> list[Result]:
        results: list[Result] = [{}] * len(inputs)
        for paired, encode in ((False, encode_texts), (True, encode_pairs)):
            places = [i for i, given in enumerate(inputs) if isinstance(given, tuple) == paired]
            chosen = [inputs[i] for i in places]
            rows = encode(self._encoder, chosen, max_length=self.max_length)
            for i, (logits,) in self._engine.logits(rows, batch_size=batch_size):
                results[places[i]] = {"value": float(logits[0]), **_cut(rows[i])}
        return results

    def _zero_shot(
        self, texts: list[Any], labels: Sequence[str], template: str, method: str, top_k: int | None, batch_size: int
    ) -> list[Result]:
        score, classes, candidates = zero_shot_method(method), nli_classes(self.labels), check_labels(labels)
        hypotheses = [fill_template(template, label) for label in candidates]
        results: list[Result] = []
        for text in [check_text(text, f"input {i + 1}") for i, text in enumerate(texts)]:
            rows = encode_pairs(self._encoder, [(text, h) for h in hypotheses], max_length=self.max_length)
            outputs = dict(self._engine.logits(rows, batch_size=batch_size))
            scores = score(np.stack([outputs[i][0] for i in range(len(rows))]), classes)
            order = np.argsort(-scores, kind="stable")[:top_k]
            ranked = {"labels": [candidates[i] for i in order], "scores": [float(scores[i]) for i in order]}
            results.append({"sequence": text, **ranked, **_cut(*rows)})
        return results

    def _entities(self, texts: list[str], top_k: int | None, batch_size: int) -> list[Result]:
        rows = encode_windows(self._encoder, texts, max_length=self.max_length, stride=self.max_length // 4)
        spans = [split_words(text) for text in texts]
        windows: list[list[tuple[Any, Any]]] = [[] for _ in texts]
        for i, (logits,) in self._engine.logits(rows, batch_size=batch_size):
            example = rows[i].example
            windows[example].append((first_token_of_words(rows[i], spans[example]), logits))
        results: list[Result] = []
        for text, words, seen_in in zip(texts, spans, windows, strict=True):
            probabilities, seen = words_over_windows(seen_in, words=len(words), classes=len(self.labels))
            results.append({"entities": find_entities(text, words, probabilities, seen, self.labels)})
        return results

    def _answers(self, asked: list[tuple[str, str]], top_k: int | None, batch_size: int) -> list[Result]:
        questions, contexts = [q for q, _ in asked], [c for _, c in asked]
        stride = self.max_length // 4
        rows = encode_questions(self._encoder, questions, contexts, max_length=self.max_length, stride=stride)
        windows: list[list[SpanWindow]] = [[] for _ in asked]
        for i, (start, end) in self._engine.logits(rows, batch_size=batch_size):
            row = rows[i]
            windows[row.example].append(SpanWindow(start, end, row.offsets, row.sequence_ids == 1))
        threshold = self._no_answer_threshold
        ranked = (
            best_answers(w, c, allow_no_answer=threshold is not None, no_answer_threshold=threshold or 0.0)
            for w, c in zip(windows, contexts, strict=True)
        )
        return [{**answers[0], **_top(answers, top_k)} for answers in ranked]

    def _fill(self, texts: list[str], top_k: int | None, batch_size: int) -> list[Result]:
        # The pieces of Unigram and byte-level vocabularies hold the space before them: the mask stands for it too.
        parts = [text.partition(_MASK) for text in texts]
        masked = [before.rstrip() + str(self._mask_token) + after for before, _, after in parts]
        rows = encode_texts(self._encoder, masked, max_length=self.max_length)
        for row, text in zip(rows, texts, strict=True):
            if (row.input_ids == self._mask_id).sum() != 1:
                raise InputError(
                    f"'{text[:60]}…': the mask lies beyond the {self.max_length} tokens that the model reads"
                )
        results: list[Result] = [{}] * len(rows)
        for i, (logits,) in self._engine.mask_logits(rows, batch_size=batch_size):
            best = best_tokens(logits, top_k=top_k or 5, excluded=self._special_ids)
            ranked = [self._filled(texts[i], token, score) for token, score in best]
            results[i] = {**ranked[0], **_top(ranked, top_k or 5), **_cut(rows[i])}
        return results

    def _filled(self, text: str, token: int, score: float) -> Result:
        """The text with this token in its masked place; a piece that continues a word takes the space before it."""
        word = self._encoder.decode([token], skip_special_tokens=False).removeprefix("##").strip()
        before, _, after = text.partition(_MASK)
        before = before.rstrip() if self._continues_word(token) else before
        return {"token_str": word, "token": token, "score": score, "sequence": before + word + after}

    def _continues_word(self, token: int) -> bool:
        if not hasattr(self, "_word_starts"):
            self._word_starts = starts_word(BarePieces(self._encoder, self._special_ids))
        return not self._word_starts[token]

    def _masked(self, value: Any, where: str) -> str:
        """The text, its mask written <mask>. Raises: InputError unless there is exactly one."""
        token = self._mask_token
        if token is None:
            raise InputError("this model's tokenizer has no mask token")
        text = check_text(value, where).replace(token, _MASK).replace("[MASK]", _MASK)
        if text.count(_MASK) != 1:
            raise InputError(f"{where}: expected exactly one {_MASK}, found {text.count(_MASK)}")
        return text


def _premise_hypothesis(value: Any, where: str) -> tuple[str, str]:
    return check_pair(value, where, keys=("premise", "hypothesis"))


def _text_or_pair(value: Any, where: str) -> str | tuple[str, str]:
    return check_text(value, where) if isinstance(value, str) else _premise_hypothesis(value, where)


def _question_context(value: Any, where: str) -> tuple[str, str]:
    return check_pair(value, where, keys=("question", "context"))


def _top(ranked: Sequence[Any], top_k: int | None) -> Result:
    return {} if top_k is None else {"top": list(ranked[:top_k])}


def _cut(*rows: Row) -> Result:
    return {"truncated": True} if any(row.truncated for row in rows) else {}
