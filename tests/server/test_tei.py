"""`/predict` against text-embeddings-inference 1.8: forms of input, forms of answer, errors.

What is expected here was read off that server's source and its OpenAPI (router/src/http/types.rs and server.rs,
docs/openapi.json; Apache-2.0), not off ours.
"""

import itertools
from typing import Any

import numpy as np
import pytest

from serving import ask
from tiny import SENTENCES

PAIR = ["Il pleut sur Lyon.", "Le sol est sec."]
PAIRS = [[first[:20], second[:20]] for first, second in itertools.pairwise(SENTENCES)]


def labels(found: Any) -> list[str]:
    assert all(set(one) == {"score", "label"} for one in found)
    scores = [one["score"] for one in found]
    assert scores == sorted(scores, reverse=True)
    return [one["label"] for one in found]


@pytest.mark.parametrize("inputs", [SENTENCES[0], [SENTENCES[0]]])
def test_one_text_is_answered_by_one_list(inputs: Any, port: int) -> None:
    found = ask(port, "/predict", {"inputs": inputs})
    assert found.status == 200
    assert sorted(labels(found.content)) == ["negative", "positive"]
    assert sum(one["score"] for one in found.content) == pytest.approx(1)


def test_two_strings_are_a_pair(port: int, predictors: dict[str, Any]) -> None:
    found = ask(port, "/models/nli/predict", {"inputs": PAIR})
    assert sorted(labels(found.content)) == ["contradiction", "entailment", "neutral"]
    wanted = predictors["nli"].predict([tuple(PAIR)], top_k=3)[0]["top"]
    assert [one["score"] for one in found.content] == pytest.approx([one["score"] for one in wanted], abs=1e-5)
    assert ask(port, "/predict", {"inputs": PAIR}).status == 422  # the first model reads one text


def test_a_list_of_lists_is_a_batch(port: int) -> None:
    singly = [ask(port, "/predict", {"inputs": text}).content for text in SENTENCES]
    together = ask(port, "/predict", {"inputs": [[text] for text in SENTENCES]}).content
    assert [labels(one) for one in together] == [labels(one) for one in singly]
    scores = [[one["score"] for one in answer] for answer in together]
    np.testing.assert_allclose(scores, [[one["score"] for one in answer] for answer in singly], atol=1e-5)
    assert len(ask(port, "/models/nli/predict", {"inputs": PAIRS}).content) == len(PAIRS)
    numbers = ask(port, "/models/rating/predict", {"inputs": [["Une cave."], ["Trop salé."]]}).content
    assert [len(one) for one in numbers] == [1, 1]


def test_raw_scores_are_logits(port: int) -> None:
    """Their softmax is what comes without the flag."""
    plain = {one["label"]: one["score"] for one in ask(port, "/models/nli/predict", {"inputs": PAIR}).content}
    raw = ask(port, "/models/nli/predict", {"inputs": PAIR, "raw_scores": True}).content
    powers = {name: np.exp(score) for name, score in zip(labels(raw), (one["score"] for one in raw), strict=True)}
    assert sum(powers.values()) != pytest.approx(1, abs=1e-3)
    assert plain == pytest.approx({name: power / sum(powers.values()) for name, power in powers.items()}, abs=1e-5)
    topics = ask(port, "/models/topics/predict", {"inputs": PAIR[0], "raw_scores": True}).content
    own = {one["label"]: one["score"] for one in ask(port, "/models/topics/predict", {"inputs": PAIR[0]}).content}
    assert own == pytest.approx({one["label"]: 1 / (1 + np.exp(-one["score"])) for one in topics}, abs=1e-5)


def test_a_long_text_is_413_unless_it_may_be_cut(port: int) -> None:
    long = " ".join(SENTENCES)
    for refused in ({"inputs": long}, {"inputs": long, "truncate": False}, {"inputs": [["Une cave."], [long]]}):
        found = ask(port, "/predict", refused)
        assert (found.status, found.content) == (
            413,
            {"error": "Input validation error: `inputs` must have less than 64 tokens", "error_type": "Validation"},
        )
    assert len(ask(port, "/predict", {"inputs": long, "truncate": True}).content) == 2
    assert len(ask(port, "/predict", {"inputs": long, "truncate": True, "raw_scores": True}).content) == 2
    assert ask(port, "/predict", {"inputs": long, "raw_scores": True}).status == 413


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"inputs": ["a", "b", "c"]}, 422, "Tokenizer"),
        ({"inputs": [["a", "b", "c"]]}, 422, "Tokenizer"),
        ({"inputs": [[]]}, 422, "Tokenizer"),
        ({"inputs": [["a"], "b"]}, 422, "Tokenizer"),
        ({"inputs": 3}, 422, "Tokenizer"),
        ({"inputs": None}, 422, "Tokenizer"),
        ({"inputs": "a", "truncate": "yes"}, 422, "Tokenizer"),
        ({"inputs": "a", "raw_scores": None}, 422, "Tokenizer"),
        ({}, 422, "Tokenizer"),
        ([], 422, "Tokenizer"),
        ({"inputs": ""}, 400, "Empty"),
        ({"inputs": []}, 400, "Empty"),
        ({"inputs": [["a"]] * 33}, 413, "Validation"),
    ],
)
def test_errors_have_that_servers_shape_and_status(body: Any, status: int, kind: str, port: int) -> None:
    found = ask(port, "/predict", body)
    assert set(found.content) == {"error", "error_type"}
    assert (found.status, found.content["error_type"]) == (status, kind)


def test_unknown_fields_are_ignored_there_and_refused_elsewhere(port: int) -> None:
    assert ask(port, "/predict", {"inputs": "a", "parameters": {}, "truncation_direction": "Right"}).status == 200
    found = ask(port, "/ner", {"inputs": "a", "parameters": {}})
    assert (found.status, found.content["error"]) == (422, "parameters: Extra inputs are not permitted")


def test_the_times_are_in_the_headers(port: int) -> None:
    found = ask(port, "/predict", {"inputs": [["été"], ["hiver"]]})
    assert found.headers["x-compute-type"] == "cpu"
    assert found.headers["x-compute-characters"] == "8"
    assert all(found.headers[f"x-{name}-time"].isdigit() for name in ("total", "queue", "inference"))
