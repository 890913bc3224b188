"""Words of a text and texts of words, in French and English."""

import pytest

from affinage.data.words import join_words, split_words


def words(text: str) -> list[str]:
    return [text[a:b] for a, b in split_words(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L'État, c'est moi.", ["L'", "État", ",", "c'", "est", "moi", "."]),
        ("jusqu’à l’aube", ["jusqu’", "à", "l’", "aube"]),
        ("Aujourd'hui, quelqu'un", ["Aujourd'hui", ",", "quelqu'un"]),
        (
            "Jean-Luc vint-il ? A-t-elle dit celui-ci ?",
            ["Jean-Luc", "vint", "-il", "?", "A", "-t-elle", "dit", "celui", "-ci", "?"],
        ),
        ("14,2 % à 12:30", ["14,2", "%", "à", "12:30"]),
        ("J. Dupont et M. K.", ["J.", "Dupont", "et", "M.", "K."]),
        ("« Oui »... (non)", ["«", "Oui", "»", "...", "(", "non", ")"]),
        ("McDonald's AT&T", ["McDonald's", "AT&T"]),
        ("e\u0301te\u0301 👩\u200d👩\u200d👧!", ["e\u0301te\u0301", "👩\u200d👩\u200d👧", "!"]),
        ("  \n ", []),
    ],
)
def test_split_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["l'", "État", "(", "ici", ")", ",", "oui", "."], "l'État (ici), oui."),
        (["d", "'", "avril", "et", "qu", "’", "il"], "d'avril et qu’il"),
        (["le", '"', "Grand", "Tour", '"', ",", "dit", "-il"], 'le "Grand Tour", dit-il'),
        (["Quoi", "?", "«", "Non", "»", ":"], "Quoi ? « Non » :"),
        (["the", "dogs'", "food"], "the dogs' food"),
        (["it", "'s", "here"], "it's here"),
        (["7", "-", "6"], "7 - 6"),
        (["l'", "…"], "l'…"),
        ([], ""),
    ],
)
def test_join_words(given: list[str], expected: str) -> None:
    text, spans = join_words(given)
    assert text == expected
    assert [text[a:b] for a, b in spans] == given


def test_a_text_rebuilt_from_words_is_cut_into_the_same_words() -> None:
    given = [
        "L'",
        "exposition",
        "d'",
        "Anne-Marie",
        "(",
        "1998",
        ")",
        "s'",
        "ouvre",
        "aujourd'hui",
        ":",
        '"',
        "Eaux",
        '"',
        ".",
    ]
    text, spans = join_words(given)
    assert split_words(text) == spans
