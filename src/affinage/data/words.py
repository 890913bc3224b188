"""Where the words of a text are: rebuilding a text from words, and cutting a text into words.

Both speak one style, that of French tokenised corpora: an elided word keeps its apostrophe ("l'", "qu'"), a hyphenated
name is one word, each punctuation mark is a word of its own. So a model trained on rebuilt sentences meets, in raw
text, the words it was trained on.
"""

import re
from collections.abc import Sequence

Span = tuple[int, int]
"""First character and the one after the last, in Python's characters (code points)."""

# What French elides before a vowel: a word of its own. Within one word stand also aujourd'hui, grand'mère, O'Connor.
_ELIDED = "(?i:c|d|j|l|m|n|s|t|qu|jusqu|lorsqu|puisqu|quoiqu)"
_ELISION = re.compile(rf"(?:{_ELIDED}|(?i:aujourd|grand|entr|presqu|quelqu|o))['’]")
_ELIDED_WORD = re.compile(rf"{_ELIDED}|(?i:aujourd|grand|entr|presqu|quelqu|o)")
_SUFFIX = r"-(?:t-)?(?i:ci|là|je|ils?|elles?|on)(?![\w-])"

# French puts a space before : ; ! ? » and after «, so only these lean on their neighbour.
_LEANS_LEFT = frozenset(",.…)]}”") | {"...", ".."}
_LEANS_RIGHT = frozenset("([{“")
_APOSTROPHES = frozenset("'’")

# `\w` leaves out combining marks, variation selectors and joiners: an accent must never be cut from its letter.
_MARKS = (
    "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"  # combining
    "\ufe00-\ufe0f\u200c\u200d\U0001f3fb-\U0001f3ff"  # variation selectors, joiners, skin tones
)
_CHAR = rf"(?:\w[{_MARKS}]*)"
_WORD = re.compile(
    rf"""
    {_ELIDED}['’](?={_CHAR})                  # an elided word: l' qu'
    | (?:[A-ZÀ-ÖØ-Þ]\.)+(?!\w)                # initials: J. U.S.
    | \d+(?:[.,:]\d+)+                        # a number: 14,2 1.000 12:30
    | {_SUFFIX}                               # -ci, -t-il
    | {_CHAR}+(?:(?!{_SUFFIX})[-'’&]{_CHAR}+)*  # a word, with inner hyphens and apostrophes
    | \.\.+                                   # suspension points
    | \S[{_MARKS}]*(?:(?<=\u200d)\S[{_MARKS}]*)*  # any other sign; emoji joined by a zero-width joiner stay together
    """,
    re.VERBOSE,
)


def split_words(text: str) -> list[Span]:
    """The character span of every word of `text`, in order; every character that is not white space is in one of them.

    >>> [text[a:b] for text in ["L'État, c'est moi."] for a, b in split_words(text)]
    ["L'", 'État', ',', "c'", 'est', 'moi', '.']
    """
    return [match.span() for match in _WORD.finditer(text)]


def join_words(words: Sequence[str]) -> tuple[str, list[Span]]:
    """The text that these words were cut from, as French writes it, and each word's span in it.

    A straight quotation mark opens and closes in turn. Whatever the guess, `text[start:end] == word` for every word.

    >>> join_words(["l'", "État", "(", "ici", ")", "."])
    ("l'État (ici).", [(0, 2), (2, 6), (7, 8), (8, 11), (11, 12), (12, 13)])
    """
    parts: list[str] = []
    spans: list[Span] = []
    position = 0
    quote_open = False
    leans_right = True  # nothing is put before the first word
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        after = words[index + 1] if index + 1 < len(words) else ""
        elision = word in _APOSTROPHES and _ELIDED_WORD.fullmatch(before) is not None
        closes = word == '"' and quote_open
        if not (leans_right or closes or elision or word in _LEANS_LEFT or _is_suffix(word, before)):
            parts.append(" ")
            position += 1
        parts.append(word)
        spans.append((position, position + len(word)))
        position += len(word)
        if word == '"':
            quote_open = not quote_open
        opens = word == '"' and quote_open
        elided = _ELISION.fullmatch(word) is not None and after[:1].isalnum()
        leans_right = elision or elided or opens or word in _LEANS_RIGHT
    return "".join(parts), spans


def _is_suffix(word: str, before: str) -> bool:
    """Whether `word` is written onto the word before it: `-ci`, `-t-il`, English `'s`."""
    return len(word) > 1 and word[0] in "-'’" and word[1].isalpha() and before[-1:].isalnum()
