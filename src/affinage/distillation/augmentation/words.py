"""Which words of a text may be replaced, and which candidates fit in their place."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from affinage.data.words import split_words
from affinage.distillation.augmentation.languages import Language

_VOWELS = frozenset("aeiouyœæ")


@dataclass(frozen=True)
class Place:
    """A word that may be replaced: `text[start:end]`."""

    start: int
    end: int
    word: str
    before: str
    """the word or sign in front of it, as `folded`; empty at the beginning"""


def places_in(text: str, language: Language) -> list[Place]:
    """The words of letters alone that are no function words, in order.

    So numbers, signs, compounds (`peut-être`, `don't`, `aujourd'hui`) and elided words (`l'`, `qu'`) stay.
    """
    found: list[Place] = []
    before = ""
    for start, end in split_words(text):
        word = text[start:end]
        plain = folded(word)
        if is_word(plain) and plain not in language.stop_words:
            found.append(Place(start, end, word, before))
        before = plain
    return found


def is_word(text: str) -> bool:
    """Whether `text` is of letters alone, two at least, accents in either of Unicode's forms."""
    return len(text) > 1 and unicodedata.normalize("NFC", text).isalpha()


def folded(word: str) -> str:
    """The word as it is looked up: lower case, composed accents, straight apostrophes."""
    return unicodedata.normalize("NFC", word).casefold().replace("’", "'")


def fitting(place: Place, ranked: Iterable[str], language: Language, *, count: int) -> list[str]:
    """The first `count` of the `ranked` candidates that are words, are another word, and can stand behind `before`.

    Capitals are as in the word replaced: `Paris` -> `Lyon`, `PARIS` -> `LYON`; in place of a small letter a candidate
    keeps its own.
    """
    found: dict[str, None] = {}
    own = folded(place.word)
    for candidate in ranked:
        if len(found) == count:
            break
        if is_word(candidate) and folded(candidate) != own and _stands_behind(place.before, candidate, language):
            found[_capitals_of(place.word, candidate)] = None
    return list(found)


def _stands_behind(before: str, word: str, language: Language) -> bool:
    if before not in language.before_vowel and before not in language.before_consonant:
        return True
    first = unicodedata.normalize("NFD", folded(word))[0]
    return first not in language.unsure and (first in _VOWELS) == (before in language.before_vowel)


def _capitals_of(word: str, candidate: str) -> str:
    if len(word) > 1 and word.isupper():
        return candidate.upper()
    return candidate[0].upper() + candidate[1:] if word[0].isupper() else candidate
