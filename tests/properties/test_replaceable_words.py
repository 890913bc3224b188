"""Which words augmentation may replace, and what may take their place: French and English."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affinage.data.words import split_words
from affinage.distillation.augmentation.languages import LANGUAGES, language_named, language_of
from affinage.distillation.augmentation.words import Place, fitting, folded, is_word, places_in
from affinage.errors import InputError

FR, EN = LANGUAGES["fr"], LANGUAGES["en"]
TEXTS = st.text(alphabet="aeéèlqud'’ -.,!2<>▁\u0301\u00a0LÉM\n", max_size=60) | st.lists(
    st.sampled_from([*sorted(FR.stop_words)[:40], "L'", "marché", "ÉCOLE", "d’", "aujourd'hui", "peut-être", "14,2"]),
    max_size=12,
).map(" ".join)


def words(text: str, language: str = "fr") -> list[str]:
    return [text[p.start : p.end] for p in places_in(text, LANGUAGES[language])]


@settings(deadline=None)
@given(TEXTS, st.sampled_from(sorted(LANGUAGES)))
def test_a_place_is_a_whole_word_of_letters_that_is_no_function_word(text: str, name: str) -> None:
    spans = split_words(text)
    for place in places_in(text, LANGUAGES[name]):
        assert (place.start, place.end) in spans
        assert place.word == text[place.start : place.end]
        assert unicodedata.normalize("NFC", place.word).isalpha()
        assert folded(place.word) not in LANGUAGES[name].stop_words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("L'école d’Annecy n'ouvre qu'aujourd'hui.", ["école", "Annecy", "ouvre"]),
        ("Le petit marché est peut-être fermé : 14,2 % !", ["petit", "marché", "fermé"]),
        ("Y a-t-il du fromage ? Celui-ci, oui.", ["fromage"]),
        ("LES MATINS SONT LONGS", ["MATINS", "LONGS"]),
        (
            unicodedata.normalize("NFD", "Un été très long à l'étranger"),
            [unicodedata.normalize("NFD", w) for w in ("long", "étranger")],
        ),
        ("<mask> [MASK] </s>", ["mask", "MASK"]),
        ("", []),
    ],
)
def test_french(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_english() -> None:
    assert words("Don't you think the O'Connors won't buy 3 well-known cheeses?", "en") == ["think", "buy", "cheeses"]


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_lists_are_in_the_form_they_are_looked_up_in(name: str) -> None:
    language = LANGUAGES[name]
    for listed in (language.stop_words, language.before_vowel, language.before_consonant):
        assert all(folded(word) == word for word in listed)
    assert all(word.isalpha() for word in language.stop_words)
    assert not language.before_vowel & language.before_consonant


def test_the_language_is_that_of_the_function_words() -> None:
    assert language_of(["Le vent se lève sur la plaine.", "Il a plu."]).name == "fr"
    assert language_of(["The wind has risen over the plain.", "It was raining."]).name == "en"
    assert language_of([]).name == "fr"
    with pytest.raises(InputError, match=r"unknown language 'frr'\. Did you mean 'fr'"):
        language_named("frr")


def place(word: str, before: str = "") -> Place:
    return Place(0, len(word), word, before)


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ("l'", ["école", "œuvre", "État"]),
        ("qu'", ["école", "œuvre", "État"]),
        ("cet", ["école", "œuvre", "État"]),
        ("le", ["marché"]),
        ("du", ["marché"]),
        ("grand", ["école", "marché", "œuvre", "hôtel", "yaourt", "État"]),
        ("", ["école", "marché", "œuvre", "hôtel", "yaourt", "État"]),
    ],
)
def test_what_stands_behind_an_elided_word_begins_with_a_vowel_and_nothing_else_does(
    before: str, kept: list[str]
) -> None:
    ranked = ["école", "marché", "œuvre", "hôtel", "yaourt", "État"]
    assert fitting(place("prix", before), ranked, FR, count=9) == kept


def test_an_apple_and_a_pear() -> None:
    ranked = ["apple", "pear", "house", "union"]
    assert fitting(place("thing", "an"), ranked, EN, count=9) == ["apple"]
    assert fitting(place("thing", "a"), ranked, EN, count=9) == ["pear"]
    assert fitting(place("thing", "the"), ranked, EN, count=9) == ranked


def test_capitals_are_those_of_the_word_replaced() -> None:
    ranked = ["lyon", "Brest", "arles"]
    assert fitting(place("Paris"), ranked, FR, count=9) == ["Lyon", "Brest", "Arles"]
    assert fitting(place("PARIS"), ranked, FR, count=9) == ["LYON", "BREST", "ARLES"]
    assert fitting(place("ville"), ranked, FR, count=2) == ["lyon", "Brest"]
    assert fitting(place("Été"), ["été", "ÉTÉ", "hiver", "Hiver", "x", "", "3e", "▁au", "##ment"], FR, count=9) == [
        "Hiver"
    ]


@settings(deadline=None)
@given(st.lists(st.text(max_size=8), max_size=30), st.text(min_size=1, max_size=8), st.integers(1, 9))
def test_candidates_are_other_words_each_once(ranked: list[str], word: str, count: int) -> None:
    found = fitting(place(word), ranked, FR, count=count)
    assert len(found) == len(set(found)) <= count
    usable = [c for c in ranked if is_word(c) and folded(c) != folded(word)]
    assert {folded(c) for c in found} <= {folded(c) for c in usable} | {folded(c.upper()) for c in usable}
    assert bool(found) == bool(usable)
