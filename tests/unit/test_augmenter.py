"""Fill-mask candidates against the stock model asked one text at a time, and what copies may and may not change."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from affinage.data.words import split_words
from affinage.distillation.augmentation.copies import Augmentation, Augmenter
from affinage.distillation.augmentation.fill_mask import FillMask, Masked
from affinage.distillation.augmentation.languages import LANGUAGES
from affinage.distillation.augmentation.vectors import WordVectors
from affinage.distillation.augmentation.words import folded, is_word, places_in
from affinage.errors import InputError
from tiny import ARCHITECTURES, SENTENCES, tiny_model, tiny_tokenizer

FR = LANGUAGES["fr"]
VECTORS = WordVectors.of(
    ("fromage", "beurre", "moulin", "couteau", "école", "hiver", "Jura", "Lyon"),
    np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32),
)


def fill_mask(architecture: str, **settings: object) -> FillMask:
    model, tokenizer = tiny_model(architecture), tiny_tokenizer(architecture)
    return FillMask(model, tokenizer, **{"row_length": 64, **settings})  # type: ignore[arg-type]


def asked_words(guess: FillMask, texts: Sequence[str]) -> list[tuple[str, Masked, int]]:
    """Every whole-piece word: text, question, first character."""
    found = []
    for text, row in zip(texts, guess.rows(texts), strict=True):
        spans = [(p.start, p.end) for p in places_in(text, FR)]
        for token, (start, _) in zip(guess.whole_words(row, spans), spans, strict=True):
            if token is not None:
                found.append((text, Masked(row, token), start))
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_candidates_are_the_likeliest_words_of_the_stock_model(architecture: str) -> None:
    guess, model, tokenizer = fill_mask(architecture), tiny_model(architecture), tiny_tokenizer(architecture)
    assert guess.twice == (architecture == "bert")
    asked = asked_words(guess, SENTENCES)
    assert len(asked) > 3
    found = guess.candidates([question for _, question, _ in asked], 5)
    vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    for (text, question, start), words in zip(asked, found, strict=True):
        pair = {"text_pair": text, "return_token_type_ids": True} if guess.twice else {}
        one = tokenizer(text, **pair, return_tensors="pt")
        if one["input_ids"].shape[1] > 64:
            continue  # cut to what is around the word: below
        token = one.char_to_token(0, start, 0)
        assert question.token == token
        own = vocabulary[int(one["input_ids"][0, token])]
        one["input_ids"][0, token] = tokenizer.mask_token_id
        with torch.inference_mode():
            logits = model(**one).logits[0, token]
        glued = own.startswith("##"), own[:1] in "▁Ġ"
        ranked: dict[str, float] = {}
        for i in logits.argsort(descending=True).tolist():
            piece = vocabulary[i]
            word = tokenizer.decode([i]).strip().removeprefix("##")
            if (
                is_word(word)
                and (piece.startswith("##"), piece[:1] in "▁Ġ") == glued
                and i not in tokenizer.all_special_ids
            ):
                ranked.setdefault(word, logits[i].item())
        # By their scores: words of almost equal ones may change places between a batch and a text alone.
        assert [ranked[word] for word in words] == pytest.approx(list(ranked.values())[:5], abs=1e-6)
        assert len(set(words)) == 5


@pytest.mark.parametrize("architecture", ["camembert", "bert"])
def test_of_a_long_text_the_model_sees_what_is_around_the_word(architecture: str) -> None:
    guess = fill_mask(architecture, row_length=15)
    sentence, question, _ = asked_words(guess, SENTENCES)[0]
    begin, end = question.row.offsets[question.token]
    text = " ".join([sentence[begin:end], *SENTENCES, sentence[begin:end]])
    asked = [question for _, question, _ in asked_words(guess, [text])]
    inputs = [guess._input(question) for question in asked]
    mask = tiny_tokenizer(architecture).mask_token_id
    assert all(len(ids) <= 15 and ids[at] == mask for ids, _, at in inputs)
    assert len({at for _, _, at in inputs}) >= 3  # in the middle, but at both ends
    for question, (ids, types, at) in zip(asked, inputs, strict=True):
        half = (len(ids) - 3) // 2 if guess.twice else len(ids) - 2
        seen = ids[1 : 1 + half].copy()
        seen[at - 1] = question.row.input_ids[question.token]
        whole = question.row.input_ids[1:-1]
        begin = question.token - at
        assert np.array_equal(seen, whole[begin : begin + half])
        if guess.twice:  # the same words, unmasked, behind it
            assert np.array_equal(ids[half + 2 : -1], seen)
            assert types.tolist() == [0] * (half + 2) + [1] * (half + 1)


def test_what_cannot_guess_is_refused() -> None:
    with pytest.raises(InputError, match=r"'camembert' knows no pairs of texts: leave --pairs out"):
        fill_mask("camembert", twice=True)
    with pytest.raises(InputError, match="rows of 4 tokens have room for special tokens only"):
        fill_mask("bert", row_length=4)
    assert not fill_mask("bert", twice=False).twice


GUESS = {architecture: fill_mask(architecture) for architecture in ("camembert", "bert")}
TEXTS = st.lists(
    st.sampled_from(
        [
            *SENTENCES,
            "Le <mask> et la [MASK] du </s> moulin",
            "L’école",
            "fromage",
            "FROMAGE de l'école d'hiver",
            "3 %",
            "de la",
        ]
    )
    | st.text(max_size=30),
    min_size=1,
    max_size=4,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS, st.sampled_from(sorted(GUESS)), st.integers(1, 4), st.integers(0, 9))
def test_copies_change_words_that_may_be_changed_and_nothing_else(
    texts: list[str], architecture: str, copies: int, seed: int
) -> None:
    augmenter = Augmenter(GUESS[architecture], VECTORS, FR, Augmentation(copies=copies, probability=0.5, seed=seed))
    made = augmenter.copies(texts, first=seed)
    assert len(made) == len(texts)
    special = tiny_tokenizer(architecture).all_special_tokens
    for text, found in zip(texts, made, strict=True):
        assert len(found) == len(set(found)) <= copies
        assert text not in found
        before = [text[a:b] for a, b in split_words(text)]
        free = {place.word for place in places_in(text, FR)}
        gaps = list(
            zip([0, *(b for _, b in split_words(text))], [*(a for a, _ in split_words(text)), len(text)], strict=True)
        )
        for copy in found:
            after = [copy[a:b] for a, b in split_words(copy)]
            assert len(after) == len(before)
            for old, new in zip(before, after, strict=True):
                assert old == new or (old in free and folded(old) != folded(new) and is_word(new))
            spans = split_words(copy)
            assert [
                copy[a:b] for a, b in zip([0, *(b for _, b in spans)], [*(a for a, _ in spans), len(copy)], strict=True)
            ] == [text[a:b] for a, b in gaps]
            assert all(copy.count(token) == text.count(token) for token in special)


def test_the_copies_of_a_text_depend_on_text_number_and_seed_alone() -> None:
    def made(texts: Sequence[str], first: int, seed: int = 0, part: int = 0) -> list[list[str]]:
        plan = Augmentation(copies=4, seed=seed)
        return Augmenter(GUESS["camembert"], VECTORS, FR, plan).copies(texts, first=first, part=part)

    together = made(SENTENCES[:6], 3)
    assert [made([text], 3 + i)[0] for i, text in enumerate(SENTENCES[:6])] == together
    assert made(SENTENCES[:6], 3) == together
    assert made(SENTENCES[:6], 4) != together
    assert made(SENTENCES[:6], 3, seed=1) != together
    assert made(SENTENCES[:6], 3, part=1) != together


def test_words_of_several_pieces_become_neighbours_and_are_counted() -> None:
    augmenter = Augmenter(GUESS["camembert"], VECTORS, FR, Augmentation(copies=3, probability=1.0, candidates=2))
    (copies,) = augmenter.copies(["fromage"], first=0)
    near = VECTORS.nearest(["fromage"], 2)[0]
    assert set(copies) <= set(near) and copies
    assert augmenter.taken() == {"vectors": 1}
    assert augmenter.taken() == {}
    (copies,) = augmenter.copies(["d'inconnus"], first=0)
    assert copies == [] and augmenter.taken() == {"none": 1}


def test_each_word_is_replaced_with_the_probability_asked_for() -> None:
    augmenter = Augmenter(GUESS["camembert"], VECTORS, FR, Augmentation(copies=400, probability=0.3))
    replaced, rank = augmenter._draw((0, 0), 50)
    assert replaced.mean() == pytest.approx(0.3, abs=0.01)
    assert rank.mean() == pytest.approx(0.5, abs=0.01)
