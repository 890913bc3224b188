"""Whatever the texts and the batching: results stand in their inputs' places, offsets in the original text."""

from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affinage.runtime.facts import TOKENS
from affinage.runtime.load import predictor_of
from affinage.runtime.predictor import Predictor
from tiny import SENTENCES, tiny_model, tiny_tokenizer

ENGINES = ("torch", "onnx")
ARCHITECTURES = ("camembert", "bert", "roberta")
NLI = {0: "entailment", 1: "neutral", 2: "contradiction"}
TAGS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}

# Accents in one code point and in two, emoji with modifiers and joiners, no-break and narrow spaces, other scripts.
PARTS = (
    "Élodie",
    "e\u0301te\u0301",
    "👩🏽‍🚀",
    "😀",
    "ß",
    "ﬁn",
    "Lyon",
    "l'hiver",
    "12\u202f%",
    "«\u00a0oui\u00a0»",
    "日本",
    "a\u0308",
    "…",
    "Ω",
    "naïf",
)
WORDS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=120)
SPACES = st.sampled_from((" ", "  ", "\n", "\u00a0", ", "))
TEXTS = st.builds(lambda words, space: space.join(words), WORDS, SPACES).filter(str.strip)
PROPERTY = settings(deadline=None, max_examples=12)


@lru_cache
def predictor(kind: Any, architecture: str, engine: Any) -> Predictor:
    config: dict[str, Any] = {"pair": {"id2label": NLI}, "token": {"id2label": TAGS}}.get(kind, {})
    head = {"embedding": "mlm"}.get(kind, kind)
    model = tiny_model(architecture, head, initializer_range=0.5, **config)
    return predictor_of(model, tiny_tokenizer(architecture), kind=kind, engine=engine, threads=1)


@pytest.mark.parametrize("engine", ENGINES)
@PROPERTY
@given(texts=st.lists(st.one_of(TEXTS, st.sampled_from(SENTENCES)), min_size=1, max_size=12), size=st.integers(1, 9))
def test_results_stand_in_their_inputs_places(engine: str, texts: list[str], size: int) -> None:
    one = predictor("embedding", "camembert", engine)
    alone = [one.predict(text)[0]["embedding"] for text in texts]
    for found in (one.predict(texts, batch_size=size), list(one.stream(iter(texts), batch_size=size))):
        for ours, theirs in zip(found, alone, strict=True):
            assert ours["embedding"] == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
@PROPERTY
@given(
    texts=st.lists(TEXTS, min_size=1, max_size=4),
    labels=st.lists(st.sampled_from(("train", "pluie", "fromage", "été")), min_size=1, max_size=4, unique=True),
    size=st.integers(1, 9),
)
def test_zero_shot_labels_stay_with_their_text(engine: str, texts: list[str], labels: list[str], size: int) -> None:
    one = predictor("pair", "camembert", engine)
    together = one.predict(texts, labels=labels, batch_size=size)
    for text, found in zip(texts, together, strict=True):
        (alone,) = one.predict(text, labels=labels)
        scores = dict(zip(alone["labels"], alone["scores"], strict=True))
        assert found["sequence"] == text
        assert dict(zip(found["labels"], found["scores"], strict=True)) == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("engine", ENGINES)
@PROPERTY
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_entities_stand_in_the_original_text(engine: str, architecture: str, texts: list[str]) -> None:
    for text, found in zip(texts, predictor("token", architecture, engine).predict(texts), strict=True):
        ends = 0
        for entity in found["entities"]:
            assert text[entity["start"] : entity["end"]] == entity["word"] == entity["word"].strip() != ""
            assert entity["start"] >= ends
            ends = entity["end"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("engine", ENGINES)
@PROPERTY
@given(contexts=st.lists(TEXTS, min_size=1, max_size=3))
def test_answers_stand_in_the_original_context(engine: str, architecture: str, contexts: list[str]) -> None:
    asked = [{"question": "Qui ?", "context": context} for context in contexts]
    for context, found in zip(contexts, predictor("span", architecture, engine).predict(asked, top_k=3), strict=True):
        for answer in found["top"]:
            assert context[answer["start"] : answer["end"]] == answer["answer"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_batch_holds_no_more_tokens_than_it_may(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = predictor("sequence", "camembert", engine)
    seen: list[tuple[int, ...]] = []
    target, name = (one.loaded.engine, "run") if engine == "onnx" else (one.loaded.engine, "_outputs")
    real = getattr(target, name)

    def spy(inputs: Any) -> Any:
        seen.append(tuple(inputs["input_ids"].shape))
        return real(inputs)

    monkeypatch.setattr(target, name, spy)
    one.predict([" ".join(SENTENCES), "oui", "non"] * 40)
    assert sum(rows for rows, _ in seen) == 120
    assert max(rows * width for rows, width in seen) <= TOKENS
    assert max(rows for rows, _ in seen) <= 64
    assert len(seen) == 5  # 40 long rows of 64 tokens by 16, 80 short ones
