"""Called like transformers' pipelines: the same results as those give, computed here by transformers itself."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline as stock_pipeline

import affinage
from affinage.errors import InputError
from tiny import SENTENCES, save_tiny

TEXTS = [*SENTENCES, "Été à Lille, e\u0301te\u0301…", "😀 Zoé (née à Lyon) : «non» ; oui !"]
LOUD = {"initializer_range": 0.5}
NLI = {0: "entailment", 1: "neutral", 2: "contradiction"}
BIO = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
ARCHITECTURES = ("camembert", "bert", "roberta")


def same(ours: Any, theirs: Any) -> bool:
    """Equal in shape, keys and values; numbers within rounding."""
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list):
        return isinstance(ours, list) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, str | int):
        return type(ours) is type(theirs) and bool(ours == theirs)
    return isinstance(ours, float) and abs(ours - float(theirs)) < 1e-4


class Both:
    """A call to transformers' pipeline and to ours, torch and the exported graph, and whether they agree."""

    def __init__(self, task: str, model: Path, folder: Path, **defaults: Any) -> None:
        self.stock = stock_pipeline(task, model=str(model), **defaults)
        if getattr(self.stock.model.config, "type_vocab_size", 0) > 1:  # the tiny tokenizer has no class that says it
            self.stock.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
        self.ours = [affinage.pipeline(task, model, **defaults)]
        if not (folder / "onnx").exists():
            affinage.export(model, out=folder / "onnx", task="nli" if task.startswith("zero") else None)
        self.ours.append(affinage.pipeline(task, model=folder / "onnx", **defaults))

    def __call__(self, *inputs: Any, **options: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its heuristics
            wanted = self.stock(*inputs, **options)
        for one in self.ours:
            found = one(*inputs, **options)
            assert same(found, wanted), f"{found}\n{wanted}"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_text_classification(architecture: str, tmp_path: Path) -> None:
    labels = {0: "a", 1: "b", 2: "c"}
    both = Both("text-classification", save_tiny(tmp_path, architecture, "sequence", **LOUD, id2label=labels), tmp_path)
    pair = {"text": TEXTS[0][:20], "text_pair": TEXTS[1][:20]}
    both(TEXTS[0])
    both(TEXTS, truncation=True)
    both([TEXTS[0]])
    both(TEXTS[0], top_k=1)
    both(TEXTS[0], top_k=None)
    both(TEXTS, top_k=2, truncation=True)
    both(TEXTS, function_to_apply="sigmoid", truncation=True)
    both(TEXTS[0], function_to_apply="none", top_k=3)
    both(pair)
    both([pair, {"text": "Oui", "text_pair": "Non"}])
    both(" ".join(TEXTS), truncation=True)
    all_scores = Both("text-classification", tmp_path / f"{architecture}-sequence", tmp_path, top_k=None)
    all_scores(TEXTS[0])
    all_scores(TEXTS, truncation=True)


@pytest.mark.parametrize(
    ("problem", "labels"), [("multi_label_classification", 3), ("regression", 1), (None, 1), ("regression", 2)]
)
def test_what_makes_scores_follows_the_models_problem(problem: str | None, labels: int, tmp_path: Path) -> None:
    names = {i: f"name {i}" for i in range(labels)}
    model = save_tiny(tmp_path, "camembert", "sequence", **LOUD, id2label=names, problem_type=problem)
    stock = stock_pipeline("text-classification", model=str(model))
    ours = affinage.pipeline("text-classification", model)
    for options in ({}, {"top_k": None}):
        assert same(ours(TEXTS, **options), stock(TEXTS, **options))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_token_classification(architecture: str, strategy: str, tmp_path: Path) -> None:
    model = save_tiny(tmp_path, architecture, "token", **LOUD, id2label=BIO)
    both = Both("token-classification", model, tmp_path, aggregation_strategy=strategy)
    both(TEXTS[0])
    both(TEXTS)
    both(" ".join(TEXTS), **({} if strategy == "none" else {"stride": 8}))
    both(TEXTS[:3], ignore_labels=["PER", "B-PER", "I-PER"])


@pytest.mark.parametrize("names", [NLI, {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}])
def test_zero_shot_classification(names: dict[int, str], tmp_path: Path) -> None:
    model = save_tiny(tmp_path, "camembert", "pair", **LOUD, id2label=names, label2id={v: k for k, v in names.items()})
    both = Both("zero-shot-classification", model, tmp_path)
    both(TEXTS[0], ["fromage", "train", "pluie"])
    both(TEXTS, candidate_labels="fromage, train, pluie")
    both(TEXTS, candidate_labels=["fromage", "train"], multi_label=True)
    both(TEXTS[:2], candidate_labels=["fromage"], hypothesis_template="Ce texte parle de {}.")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fill_mask(architecture: str, tmp_path: Path) -> None:
    model = save_tiny(tmp_path, architecture, "mlm", **LOUD)
    both = Both("fill-mask", model, tmp_path)
    mask = both.stock.tokenizer.mask_token
    both(f"Le {mask} du village.")
    both([f"Le {mask} du village.", f"Claire a quitté {mask}"])
    both(f"Le {mask} du {mask}.", top_k=2)
    both(f"Le {mask} du village.", top_k=3, targets=["e", "a"])


def test_questions_give_what_the_pipeline_gave(tmp_path: Path) -> None:
    model = save_tiny(tmp_path, "camembert", "span", **LOUD)
    ask = affinage.pipeline("question-answering", model)
    found = ask(question="Qui ?", context=TEXTS[1])
    assert set(found) == {"answer", "score", "start", "end"}
    assert ask({"question": "Qui ?", "context": TEXTS[1]}, top_k=2)[0] == found
    assert ask([{"question": "Qui ?", "context": TEXTS[1]}]) == [found]
    assert affinage.load(model)(question="Qui ?", context=TEXTS[1]) == found


def test_iterators_are_answered_as_they_come(tmp_path: Path) -> None:
    model = affinage.load(save_tiny(tmp_path, "camembert", "sequence", **LOUD))
    taken: list[int] = []

    def texts(count: int) -> Iterator[str]:
        for i in range(count):
            taken.append(i)
            yield TEXTS[i % len(TEXTS)]

    for call in (model, model.predict, model.stream):
        taken.clear()
        results = call(texts(2_000))
        next(results)
        assert len(taken) == 512  # of 2,000
        assert sum(1 for _ in results) == 1_999
    assert list(model(texts(15))) == model([TEXTS[i % len(TEXTS)] for i in range(15)])
    assert list(model.stream(TEXTS)) == model.predict(TEXTS)
    broken = model.stream(iter(["oui", 3]))
    with pytest.raises(InputError, match="input 2: expected a text, got int"):
        next(broken)
    with pytest.raises(InputError, match="batch_size"):
        model.stream(iter(["oui"]), batch_size=0)


def test_what_cannot_be_asked_is_said(tmp_path: Path) -> None:
    model = save_tiny(tmp_path, "camembert", "sequence", **LOUD)
    for given, message in [
        ({"task": "summarization"}, "unknown task 'summarization'"),
        ({"task": "ner", "model": model}, r"is a sequence model; ner needs a token one"),
        ({"task": "text-classification"}, "give a model"),
        ({"model": model, "topk": 3}, r"option topk: this is a sequence model, it takes batch_size, .*top_k"),
        ({"model": model, "engine": "tensorrt"}, "engine 'tensorrt': expected torch, onnx, openvino"),
        ({"model": model, "dtype": "int4"}, "dtype 'int4': expected float32, bfloat16"),
        ({"model": model, "engine": "onnx", "dtype": "bfloat16"}, "ONNX Runtime has none but float32"),
    ]:
        with pytest.raises(InputError, match=message):
            affinage.pipeline(**given)
    one = affinage.pipeline("text-classification", model)
    for inputs, options, message in [
        (3, {}, "expected a text, a list or an iterator of texts, got int"),
        (TEXTS[0], {"function_to_apply": "tanh"}, "function_to_apply 'tanh': expected softmax, sigmoid, none"),
        (TEXTS[0], {"candidate_labels": ["a"]}, "need a model of text pairs"),
        ([{"text": "a", "pair": "b"}], {}, "expected the keys text and text_pair"),
        (TEXTS[0], {"top_k": "2"}, "top_k: expected a whole number"),
        (TEXTS[0], {"top_k": 0}, "top_k: expected a whole number"),
        (TEXTS[0], {"max_length": 1.5}, "max_length: expected a whole number"),
        (TEXTS[0], {"function_to_apply": 3}, "function_to_apply: expected a text"),
    ]:
        with pytest.raises(InputError, match=message):
            one(inputs, **options)
    mask = affinage.pipeline("fill-mask", save_tiny(tmp_path / "mlm", "camembert", "mlm", **LOUD))
    for targets, message in (([], "the list is empty"), ([3], "expected a list of texts")):
        with pytest.raises(InputError, match=message):
            mask("Le <mask>.", targets=targets)
    tags = affinage.pipeline("ner", save_tiny(tmp_path / "ner", "camembert", "token", **LOUD))
    with pytest.raises(InputError, match="stride: expected a whole number"):
        tags(TEXTS[0], stride="3", aggregation_strategy="simple")


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_a_model_can_be_run_by_either_engine(engine: Any, tmp_path: Path) -> None:
    model = save_tiny(tmp_path, "bert", "sequence", **LOUD)
    wanted = affinage.load(model).predict(TEXTS)
    found = affinage.load(model, engine=engine, threads=1, batch_size=3).predict(TEXTS)
    assert same(found, wanted)


def test_bfloat16_changes_little(tmp_path: Path) -> None:
    model = save_tiny(tmp_path, "camembert", "sequence")
    wanted, found = (affinage.load(model, dtype=dtype).predict(TEXTS) for dtype in ("float32", "bfloat16"))
    apart = [abs(a["score"] - b["score"]) for a, b in zip(wanted, found, strict=True)]
    assert 0 < max(apart) < 0.02
