"""Prediction end to end on tiny random models: every task, raw text in, checked answers out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from affinage.errors import InputError
from affinage.runtime.load import load, predictor_of
from affinage.runtime.predictor import Predictor
from affinage.workflows.predict import predict
from tiny import ARCHITECTURES, SENTENCES, save_tiny, tiny_model, tiny_tokenizer

NLI = {0: "entailment", 1: "neutral", 2: "contradiction"}
BIO = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}
LONG = " ".join(SENTENCES)
LOUD = {"initializer_range": 0.5}  # random weights large enough for answers that differ


def predictor(kind: Any, architecture: str = "camembert", **config: Any) -> Predictor:
    head = {"fill_mask": "mlm"}.get(kind, kind)
    model = tiny_model(architecture, head, **LOUD, **config)
    return predictor_of(model, tiny_tokenizer(architecture), kind=kind)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sequence_probabilities_are_the_stock_models(architecture: str) -> None:
    found = predictor("sequence", architecture, id2label={0: "non", 1: "oui"}).predict(list(SENTENCES), top_k=2)
    model, tokenizer = tiny_model(architecture, "sequence", **LOUD), tiny_tokenizer(architecture)
    for text, result in zip(SENTENCES, found, strict=True):
        with torch.inference_mode():
            inputs = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
            expected = model(**inputs).logits[0].softmax(-1).numpy()
        tokenizer.backend_tokenizer.no_truncation()
        scores = {r["label"]: r["score"] for r in result["top"]}
        assert [scores["non"], scores["oui"]] == pytest.approx(expected.tolist(), abs=1e-5)
        assert result["score"] == max(scores.values())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
@given(order=st.permutations(range(len(SENTENCES))), batch_size=st.integers(1, 12))
def test_results_keep_the_order_of_the_inputs_under_any_batching(order: list[int], batch_size: int) -> None:
    one = predictor("sequence", id2label={0: "a", 1: "b", 2: "c"})
    alone = [one.predict(text)[0] for text in SENTENCES]
    together = one.predict([SENTENCES[i] for i in order], batch_size=batch_size)
    for place, i in enumerate(order):
        assert together[place]["label"] == alone[i]["label"]
        assert together[place]["score"] == pytest.approx(alone[i]["score"], abs=1e-5)


def test_what_is_cut_is_said() -> None:
    found = predictor("sequence").predict([SENTENCES[0], LONG])
    assert "truncated" not in found[0]
    assert found[1]["truncated"] is True
    pair = predictor("pair", id2label=NLI).predict([(LONG, "Non."), {"premise": "Oui.", "hypothesis": "Non."}])
    assert [r.get("truncated", False) for r in pair] == [True, False]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_entities_stand_where_they_say_also_in_long_texts(architecture: str) -> None:
    texts = [*SENTENCES, f"  {LONG}\n😀 {LONG}", "e\u0301te\u0301 À 👩🏽"]
    found = predictor("token", architecture, id2label=BIO).predict(texts)
    assert any(r["entities"] for r in found)
    for text, result in zip(texts, found, strict=True):
        for entity in result["entities"]:
            assert set(entity) == {"entity_group", "score", "word", "start", "end"}
            assert text[entity["start"] : entity["end"]] == entity["word"]
            assert entity["word"] == entity["word"].strip() != ""
            assert 0 < entity["score"] <= 1
            assert entity["entity_group"] in {"PER", "LOC"}
    every = predictor("token", architecture, id2label={0: "B-PER", 1: "I-PER", 2: "B-LOC", 3: "I-LOC"}).predict(
        texts[-2]
    )
    covered = [False] * len(texts[-2])
    for entity in every[0]["entities"]:
        covered[entity["start"] : entity["end"]] = [True] * len(entity["word"])
    assert all(c or not letter.isalnum() for c, letter in zip(covered, texts[-2], strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_are_spans_of_the_context_also_of_long_ones(architecture: str) -> None:
    asked = [{"question": "Qui ?", "context": c} for c in (SENTENCES[1], f" {LONG} {LONG} ", "Zoé\u00a0!")]
    for given_, result in zip(asked, predictor("span", architecture).predict(asked, top_k=3), strict=True):
        assert 1 <= len(result["top"]) <= 3
        for answer in result["top"]:
            assert (
                given_["context"][answer["start"] : answer["end"]] == answer["answer"] == answer["answer"].strip() != ""
            )
        assert result["score"] == result["top"][0]["score"]


def test_zero_shot_is_the_softmax_of_the_stock_models_entailment_logits() -> None:
    labels = ["fromage", "train", "pluie"]
    one = predictor("pair", id2label=NLI)
    model, tokenizer = tiny_model("camembert", "pair", **LOUD, id2label=NLI), tiny_tokenizer("camembert")
    with torch.inference_mode():
        logits = [
            model(**tokenizer(SENTENCES[0], f"Sujet : {x}", return_tensors="pt")).logits[0].numpy() for x in labels
        ]
    entail = np.exp([x[0] for x in logits])
    result = one.predict(SENTENCES[0], labels=labels, template="Sujet : {}")[0]
    assert dict(zip(result["labels"], result["scores"], strict=True)) == pytest.approx(
        dict(zip(labels, entail / entail.sum(), strict=True)), abs=1e-5
    )
    assert result["scores"] == sorted(result["scores"], reverse=True)
    flat = one.predict(SENTENCES[0], labels=labels, template="Sujet : {}", method="entailment_probability_softmax")[0]
    assert max(flat["scores"]) / min(flat["scores"]) <= np.e
    many = one.predict(SENTENCES[0], labels=labels, method="multi_label", top_k=2)[0]
    assert len(many["labels"]) == 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fill_mask_puts_the_stock_models_best_words(architecture: str) -> None:
    one, tokenizer = predictor("fill_mask", architecture), tiny_tokenizer(architecture)
    texts = [f"Le {mask} du village." for mask in ("<mask>", "[MASK]")]
    first, second = one.predict(texts, top_k=4)
    assert first == second
    glued = f"Le{tokenizer.mask_token} du village."
    inputs = tokenizer(glued, return_tensors="pt")
    with torch.inference_mode():
        logits = tiny_model(architecture, "mlm", **LOUD)(**inputs).logits[0]
    expected = logits[inputs["input_ids"][0] == tokenizer.mask_token_id][0].softmax(-1)
    for candidate in first["top"]:
        assert candidate["score"] == pytest.approx(float(expected[candidate["token"]]), abs=1e-5)
        assert candidate["sequence"].startswith("Le")
        assert candidate["sequence"].endswith(candidate["token_str"] + " du village.")
        assert candidate["token"] not in tokenizer.all_special_ids
    best = [i for i in expected.argsort(descending=True).tolist() if i not in tokenizer.all_special_ids]
    assert [c["token"] for c in first["top"]] == best[:4]


@pytest.mark.parametrize(
    ("kind", "inputs", "message"),
    [
        ("sequence", [], "the list is empty"),
        ("sequence", ["oui", "  \n"], "input 2: the text is empty"),
        ("sequence", ["oui", 3], "input 2: expected a text, got int"),
        ("sequence", None, "expected a text or a list of texts, got NoneType"),
        ("sequence", "a\ud800", "not valid Unicode at character 1"),
        ("sequence", "a" * 1_000_001, "at most 1,000,000"),
        ("sequence", [{"text": "oui", "id": 3}], r'as it is or as {"text": …}; got the keys text, id'),
        ("sequence", [{"text": " "}], "input 1: the text is empty"),
        ("pair", "oui", "expected a pair"),
        ("pair", [("oui", "")], "input 1, hypothesis: the text is empty"),
        ("span", {"question": "Qui ?"}, "expected the keys question and context, got question"),
        ("span", [("Qui ?", LONG)] * 600 + [(LONG, LONG)], "input 601, question: .*shorter question"),
        ("fill_mask", "Le fromage", "exactly one <mask>, found 0"),
        ("fill_mask", "<mask> [MASK]", "exactly one <mask>, found 2"),
        ("fill_mask", LONG + " <mask>", "the mask lies beyond the 64 tokens"),
    ],
)
def test_inputs_that_cannot_be_used_are_refused(kind: str, inputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        predictor(kind).predict(inputs)


def test_a_row_of_a_file_is_its_text() -> None:
    one = predictor("sequence")
    assert one.predict([{"text": "oui"}]) == one.predict(["oui"])


def test_options_that_cannot_be_used_are_refused() -> None:
    nli = predictor("pair", id2label=NLI)
    for options, message in [
        ({"labels": ["a"], "template": "{} {}"}, "exactly one {}"),
        ({"labels": []}, "expected a list of labels"),
        ({"labels": ["a", "a"]}, "given twice: a"),
        ({"labels": ["a"], "method": "eq15"}, "unknown zero-shot method"),
        ({"top_k": 0}, "top_k: expected a whole number"),
        ({"batch_size": 0}, "batch_size: expected a whole number"),
        ({"topk": 3}, "unknown option 'topk'. Did you mean 'top_k'"),
    ]:
        with pytest.raises(InputError, match=message):
            nli.predict(SENTENCES[0] if "labels" in options else [("a", "b")], **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="this is a sequence model"):
        predictor("sequence").predict("oui", labels=["a"])


def test_as_many_answers_as_are_asked_for() -> None:
    (found,) = predictor("span").predict([("Qui ?", LONG)], top_k=30)
    assert len(found["top"]) == 30


def test_the_workflow_refuses_options_of_other_tasks(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "bert", "token")
    for options, message in [
        ({"method": "multi_label"}, "a method is for zero-shot"),
        ({"template": "{}"}, "a template is for zero-shot"),
        ({"top_k": 3}, "a token model gives no ranked answers"),
        ({"threads": 10**8}, "threads: 100000000; at most"),
    ]:
        with pytest.raises(InputError, match=message):
            predict(folder, ["oui"], **options)  # type: ignore[arg-type]


def test_the_task_is_found_in_the_folder(tmp_path: Path) -> None:
    assert load(save_tiny(tmp_path, "camembert", "mlm")).kind == "fill_mask"
    assert load(save_tiny(tmp_path, "bert", "token", id2label=BIO)).kind == "token"
    assert load(save_tiny(tmp_path, "roberta", "span")).kind == "span"
    nli = save_tiny(tmp_path, "camembert", "pair", id2label=NLI)
    assert load(nli).kind == "pair"
    assert load(save_tiny(tmp_path, "distilbert", "sequence", affinage_task="nli")).kind == "pair"
    with pytest.raises(InputError, match=r"is a pair model; ner needs a token one"):
        load(nli, task="ner")
    with pytest.raises(InputError, match="unknown task 'sentimant'"):
        load(nli, task="sentimant")


def test_the_workflow(tmp_path: Path) -> None:
    qa = save_tiny(tmp_path, "camembert", "span")
    alone = predict(qa, question="Qui ?", context=SENTENCES[1])
    assert alone == predict(qa, [SENTENCES[1]], question="Qui ?")
    nli = save_tiny(tmp_path, "camembert", "pair", id2label=NLI)
    found = predict(nli, SENTENCES[0], labels=["fromage", "train"], template="Sujet : {}.")
    assert set(found[0]["labels"]) == {"fromage", "train"}
    for options, message in [
        ({}, "nothing to predict"),
        ({"context": "x"}, "a context needs a question"),
        ({"question": "x"}, "needs one context"),
        ({"inputs": "x", "question": "x", "context": "x"}, "needs one context"),
        ({"inputs": "x", "task": "zero-shot"}, "needs labels"),
        ({"inputs": "x", "template": "{}"}, "give labels too"),
    ]:
        with pytest.raises(InputError, match=message):
            predict(tmp_path / "absent", **options)  # type: ignore[arg-type]
