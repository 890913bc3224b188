"""Every endpoint answers what the predictor says, in the shape that its page and OpenAPI promise."""

from pathlib import Path
from typing import Any

import pytest

import affinage
from serving import Vectors, ask, serving
from tiny import SENTENCES, save_tiny


def close(ours: Any, theirs: Any) -> bool:
    """Equal, numbers within rounding: a text's logits depend a little on its neighbours in the batch."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(close(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    return bool(ours == theirs or (isinstance(ours, float) and abs(ours - theirs) < 1e-5))


LONG = " ".join(SENTENCES)


def test_entities(port: int, predictors: dict[str, Any]) -> None:
    wanted = [one["entities"] for one in predictors["ner"].predict([LONG, SENTENCES[1]])]
    assert wanted[0][-1]["end"] > 400  # beyond the model's 64 tokens
    assert close(ask(port, "/ner", {"inputs": LONG}).content, wanted[0])
    assert close(ask(port, "/ner", {"inputs": [LONG, SENTENCES[1]]}).content, wanted)


def test_answers(port: int, predictors: dict[str, Any]) -> None:
    asked = [{"question": "Qui a quitté Lyon ?", "context": LONG}, {"question": "Où ?", "context": SENTENCES[3]}]
    wanted = predictors["qa"].predict(asked)
    assert close(ask(port, "/qa", {"inputs": asked}).content, wanted)
    one = ask(port, "/qa", {"inputs": asked[0], "top_k": 3}).content
    assert close(one, predictors["qa"].predict(asked[:1], top_k=3)[0])
    assert LONG[one["start"] : one["end"]] == one["answer"]
    assert len(one["top"]) == 3


@pytest.mark.parametrize("multi_label", [False, True])
def test_zero_shot(multi_label: bool, port: int, predictors: dict[str, Any]) -> None:
    labels, template = ["transport", "cuisine", "sport"], "On parle de {}."
    method = "multi_label" if multi_label else "entailment_logits"
    wanted = predictors["nli"].predict(list(SENTENCES[:2]), labels=labels, template=template, method=method)
    body = {"inputs": list(SENTENCES[:2]), "labels": labels, "template": template, "multi_label": multi_label}
    assert close(ask(port, "/zero-shot", body).content, [{k: w[k] for k in ("labels", "scores")} for w in wanted])
    default = predictors["nli"].predict(SENTENCES[0], labels=labels)[0]
    found = ask(port, "/zero-shot", {"inputs": SENTENCES[0], "labels": labels}).content
    assert close(found, {k: default[k] for k in ("labels", "scores")})
    assert ask(port, "/zero-shot", {"inputs": LONG, "labels": labels}).content["truncated"] is True


def test_masked_words(port: int, predictors: dict[str, Any]) -> None:
    texts = ["Claire a quitté <mask> pour travailler.", "Le petit <mask>é du village."]
    wanted = [one["top"] for one in predictors["mlm"].predict(texts, top_k=2)]
    assert close(ask(port, "/fill-mask", {"inputs": texts, "top_k": 2}).content, wanted)
    assert len(ask(port, "/fill-mask", {"inputs": texts[0]}).content) == 5
    wrong = ask(port, "/fill-mask", {"inputs": [*texts, "rien"]})
    assert (wrong.status, wrong.content["error"]) == (422, "input 3: expected exactly one <mask>, found 0")


def test_the_model_is_chosen_by_path_or_field_and_else_is_the_first_that_can(port: int) -> None:
    first = ask(port, "/predict", {"inputs": "Une cave."}).content
    by_field = ask(port, "/predict", {"inputs": "Une cave.", "model": "topics"}).content
    assert {one["label"] for one in first} == {"negative", "positive"}
    assert {one["label"] for one in by_field} == {"two", "three"}
    assert ask(port, "/models/topics/predict", {"inputs": "Une cave.", "model": "topics"}).content == by_field
    assert ask(port, "/models/topics/predict", {"inputs": "Une cave.", "model": "rating"}).status == 422
    unknown = ask(port, "/models/nobody/predict", {"inputs": "Une cave."})
    assert (unknown.status, unknown.content["error_type"]) == (404, "NotFound")
    assert unknown.content["error"].startswith("unknown model; served: sentiment, nli, ")
    assert "nobody" not in unknown.content["error"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/models/sentiment/ner", {"inputs": "a"}),
        ("/models/ner/predict", {"inputs": "a"}),
        ("/models/mlm/embed", {"inputs": "a"}),
    ],
)
def test_a_model_that_does_something_else_is_424(path: str, body: dict[str, Any], port: int) -> None:
    found = ask(port, path, body)
    assert (found.status, found.content["error_type"]) == (424, "Backend")
    assert "does not do" in found.content["error"]


def test_health_info_and_metrics(port: int) -> None:
    assert ask(port, "/health").content == {"status": "ok"}
    info = ask(port, "/info").content
    assert info["model_id"] == "sentiment"
    assert info["model_type"] == {
        "classifier": {
            "id2label": {"0": "negative", "1": "positive"},
            "label2id": {"negative": 0, "positive": 1},
        }
    }
    offered = {one["name"]: one["endpoints"] for one in info["models"]}
    assert offered == {
        "sentiment": ["predict"],
        "nli": ["predict", "zero-shot"],
        "ner": ["ner"],
        "qa": ["qa"],
        "topics": ["predict"],
        "rating": ["predict"],
        "mlm": ["fill-mask"],
        "vectors": ["embed"],
    }
    ask(port, "/predict", {"inputs": "secret de famille"})
    found = ask(port, "/metrics")
    assert found.headers["content-type"].startswith("text/plain; version=0.0.4")
    counted = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in found.content.splitlines() if line[0] != "#"
    }
    assert counted['affinage_requests_total{endpoint="/predict",status="200"}'] >= 1
    assert counted['affinage_texts_total{endpoint="predict",model="sentiment"}'] >= 1
    assert counted["affinage_waiting_texts"] == 0
    assert counted["process_resident_memory_bytes"] > 2**20
    assert "secret" not in found.content and "famille" not in found.content


def test_embeddings_are_a_list_of_lists_always(port: int) -> None:
    assert ask(port, "/embed", {"inputs": "abc"}).content == [[3.0, 1.0]]
    assert ask(port, "/embed", {"inputs": ["abc", "de"], "normalize": False}).content == [[3.0, 0.0], [2.0, 0.0]]
    for unserved in (
        {"prompt_name": "query"},
        {"dimensions": 2},
        {"inputs": [1, 2, 3]},
        {"truncation_direction": "Left"},
    ):
        assert ask(port, "/embed", {"inputs": "abc", **unserved}).status == 422
    long = "trente lettres ne suffisent pas ici"
    assert ask(port, "/embed", {"inputs": long}).status == 413
    assert ask(port, "/embed", {"inputs": long, "truncate": True}).content == [[35.0, 1.0]]


def test_a_model_that_breaks_is_424_and_the_server_goes_on() -> None:
    class Broken(Vectors):
        def predict(self, inputs: list[str], *, normalize: bool) -> list[dict[str, Any]]:
            if "casse" in inputs:
                raise RuntimeError("un texte secret")
            return super().predict(inputs, normalize=normalize)

    with serving({"vectors": Broken()}) as port:
        found = ask(port, "/embed", {"inputs": "casse"})
        assert (found.status, found.content) == (424, {"error": "Inference failed", "error_type": "Backend"})
        assert ask(port, "/embed", {"inputs": "abc"}).status == 200


def test_vectors_of_an_exported_encoder(tmp_path: Path) -> None:
    affinage.export(save_tiny(tmp_path, "camembert", "mlm"), out=tmp_path / "vectors", task="embedding")
    predictor = affinage.load(tmp_path / "vectors", threads=1)
    with serving({"vectors": predictor}) as port:
        found = [ask(port, "/embed", {"inputs": text}).content[0] for text in SENTENCES[:3]]
    for ours, one in zip(found, predictor.predict(list(SENTENCES[:3])), strict=True):
        assert ours == pytest.approx(one["embedding"], abs=1e-5)
