"""From a request to what a predictor is asked, and from what it says to the answer: one entry an endpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from affinage.decoding.zero_shot import nli_classes
from affinage.errors import InputError
from affinage.runtime.inputs import check_labels
from affinage.runtime.predictor import Predictor
from affinage.runtime.server.limits import Limits
from affinage.runtime.server.raw_scores import raw_scores
from affinage.runtime.server.refusal import Refusal, too_large, wrong_model
from affinage.runtime.server.requests import (
    AnyRequest,
    EmbedRequest,
    FillMaskRequest,
    NerRequest,
    PredictRequest,
    QaRequest,
    ZeroShotRequest,
    texts_in,
)

_CHARACTERS_A_TOKEN = 4  # of French and English text; only how many texts make a batch depends on it
_CLASSIFIERS = ("sequence", "pair", "multi_label", "regression")


class Work(NamedTuple):
    """What is done with a text; texts of equal work are computed together."""

    model: str
    endpoint: str
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Asked:
    """A request as the batcher takes it."""

    work: Work
    payloads: list[Any]
    tokens: list[int]
    characters: int
    single: bool
    """whether one text was given, not a list"""
    cut: bool
    """whether texts that are too long for the model may be cut"""


@dataclass(frozen=True)
class Endpoint:
    """What is behind a path."""

    request: type[AnyRequest]
    kinds: tuple[str, ...]
    summary: str
    ask: Callable[[Any, Predictor], tuple[list[Any], dict[str, Any]]]
    """(body, model) -> inputs of `Predictor.predict`, and its options"""
    answer: Callable[[Any], Any]
    """result -> the answer to one text"""


def ask(name: str, body: AnyRequest, *, model: str, predictor: Predictor, limits: Limits) -> Asked:
    """The request as work of that model. Raises: Refusal for what is empty, too large, or not served."""
    endpoint = ENDPOINTS[name]
    single = not isinstance(body.inputs, list) or (name == "predict" and _is_one(body.inputs))
    inputs: Any = [body.inputs] if single else body.inputs
    if not inputs:
        raise Refusal(400, "Empty", "`inputs` cannot be empty")
    if len(inputs) > limits.max_texts:
        raise too_large(f"batch size {len(inputs)} > maximum allowed batch size {limits.max_texts}")
    for text in texts_in(inputs):
        if not text.strip():
            raise Refusal(400, "Empty", "`inputs` cannot be empty")
        if len(text) > limits.max_text_chars:
            raise too_large(f"a text has {len(text):,} characters; at most {limits.max_text_chars:,} are allowed")
    _check_options(body, limits)
    payloads, options = endpoint.ask(body.model_copy(update={"inputs": inputs}), predictor)
    truncate = getattr(body, "truncate", None)
    return Asked(
        work=Work(model, name, tuple(options.items())),
        payloads=payloads,
        tokens=[_tokens(one, endpoint, options, predictor) for one in inputs],
        characters=sum(map(len, texts_in(inputs))),
        single=single,
        cut=name not in ("predict", "embed") or (limits.auto_truncate if truncate is None else truncate),
    )


def compute(predictor: Predictor, work: Work, payloads: list[Any]) -> Sequence[Any]:
    """What a model says about texts of equal work, in their order."""
    options = dict(work.options)
    if options.pop("raw_scores", False):
        return raw_scores(predictor, payloads)
    if "labels" in options:
        options["labels"] = list(options["labels"])
    return predictor.predict(payloads, **options)


def answer(asked: Asked, results: Sequence[Any], *, max_length: int) -> Any:
    """The response's content. Raises: Refusal (413) where a text was cut that may not be."""
    if not asked.cut and any(result.get("truncated") for result in results):
        raise too_large(f"Input validation error: `inputs` must have less than {max_length} tokens")
    answers = [ENDPOINTS[asked.work.endpoint].answer(result) for result in results]
    return answers[0] if asked.single and asked.work.endpoint != "embed" else answers


def endpoints_of(predictor: Predictor) -> list[str]:
    """What a model can be asked."""
    found = [name for name, endpoint in ENDPOINTS.items() if predictor.kind in endpoint.kinds]
    if "zero-shot" in found:
        try:
            nli_classes(predictor.labels)
        except InputError:
            found.remove("zero-shot")
    return found


def _is_one(inputs: list[Any]) -> bool:
    """Whether `/predict` was given a text or a pair in a list, not a batch."""
    return bool(inputs) and isinstance(inputs[0], str)


def _check_options(body: AnyRequest, limits: Limits) -> None:
    if getattr(body, "truncation_direction", "Right") == "Left":
        raise Refusal(422, "Tokenizer", "truncation_direction: only Right is served")
    for name in ("prompt_name", "dimensions"):
        if getattr(body, name, None) is not None:
            raise Refusal(422, "Tokenizer", f"{name} is not served")
    if isinstance(body, ZeroShotRequest):
        if len(body.labels) > limits.max_labels:
            raise too_large(f"{len(body.labels)} labels; at most {limits.max_labels} are allowed")
        if any(len(text) > 1_000 for text in (*body.labels, body.template)):
            raise too_large("labels and template may have 1,000 characters")


def _tokens(given: Any, endpoint: Endpoint, options: dict[str, Any], predictor: Predictor) -> int:
    """About how many tokens are computed for one input."""
    estimate, longest = sum(len(text) for text in texts_in(given)) // _CHARACTERS_A_TOKEN + 3, predictor.max_length
    if endpoint.request in (NerRequest, QaRequest) and estimate > longest:
        # Windows overlap by a quarter of a row, or half of what the question leaves, which stands in all of them.
        question = len(given.question) // _CHARACTERS_A_TOKEN if endpoint.request is QaRequest else 0
        room = max(longest - question, longest // 4)
        return longest * -(-estimate // max(1, room - min(longest // 4, room // 2)))
    return min(estimate, predictor.max_length) * len(options.get("labels", "1"))


def _pairs_and_texts(body: PredictRequest, predictor: Predictor) -> tuple[list[Any], dict[str, Any]]:
    given = [one if isinstance(one, str) else one[0] if len(one) == 1 else tuple(one) for one in body.inputs]
    if predictor.kind not in _CLASSIFIERS:
        raise wrong_model("model is not a classifier")
    wanted = "a pair of texts" if predictor.kind == "pair" else "one text"
    if predictor.kind != "regression" and any(isinstance(one, tuple) != (predictor.kind == "pair") for one in given):
        raise Refusal(422, "Tokenizer", f"this model reads {wanted} at a time")
    if body.raw_scores:
        return given, {"raw_scores": True}
    return given, {} if predictor.kind == "regression" else {"top_k": len(predictor.labels)}


def _questions(body: QaRequest, predictor: Predictor) -> tuple[list[Any], dict[str, Any]]:
    given = body.inputs if isinstance(body.inputs, list) else [body.inputs]
    return [one.model_dump() for one in given], {"top_k": body.top_k} if body.top_k else {}


def _zero_shot(body: ZeroShotRequest, predictor: Predictor) -> tuple[list[Any], dict[str, Any]]:
    try:
        labels = check_labels(body.labels)
    except InputError as error:
        raise Refusal(422, "Tokenizer", str(error)) from None
    if body.template.count("{}") != 1:
        raise Refusal(422, "Tokenizer", "template: expected one {} for the label")
    method = "multi_label" if body.multi_label else "entailment_logits"
    return list(body.inputs), {"labels": tuple(labels), "template": body.template, "method": method}


def _predictions(result: dict[str, Any]) -> list[dict[str, Any]]:
    if "value" in result:
        return [{"score": result["value"], "label": result.get("label", "value")}]
    return [{"score": one["score"], "label": one["label"]} for one in result["top"]]


def _span(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key in ("answer", "score", "start", "end", "top")}


ENDPOINTS: dict[str, Endpoint] = {
    "predict": Endpoint(
        PredictRequest,
        _CLASSIFIERS,
        "Classes of texts or pairs, as text-embeddings-inference",
        _pairs_and_texts,
        _predictions,
    ),
    "embed": Endpoint(
        EmbedRequest,
        ("embedding",),
        "Vectors of texts, as text-embeddings-inference",
        lambda body, _: (body.inputs, {"normalize": body.normalize}),
        lambda result: result["embedding"],
    ),
    "ner": Endpoint(
        NerRequest, ("token",), "Named entities", lambda body, _: (body.inputs, {}), lambda result: result["entities"]
    ),
    "qa": Endpoint(QaRequest, ("span",), "Answers found in texts", _questions, _span),
    "zero-shot": Endpoint(
        ZeroShotRequest,
        ("pair",),
        "Classes named in the request, by a model of entailment",
        _zero_shot,
        lambda result: {key: result[key] for key in ("labels", "scores", "truncated") if key in result},
    ),
    "fill-mask": Endpoint(
        FillMaskRequest,
        ("fill_mask",),
        "Words in the place of <mask>",
        lambda body, _: (body.inputs, {"top_k": body.top_k}),
        lambda result: result["top"],
    ),
}
