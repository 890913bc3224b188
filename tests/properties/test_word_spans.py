"""Whatever the characters, spans point at the words they came from."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from affinage.data.words import join_words, split_words

AWKWARD = st.text(
    alphabet=st.one_of(
        st.sampled_from("aéœÀz'’-\u0301\u0327\u200d\ufe0f😀👩🏽 \n\t\u00a0.,;:!?«»\"()0123456789%€_"),
        st.characters(exclude_categories=["Cs"]),
    )
)
WORDS = st.lists(st.one_of(st.sampled_from(["l'", "d", "'", "’", '"', "(", ")", ".", "...", "-ci", "'s"]), AWKWARD))


@given(WORDS)
def test_join_words_spans_are_the_words(words: list[str]) -> None:
    text, spans = join_words(words)
    assert [text[a:b] for a, b in spans] == words
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


@given(AWKWARD)
def test_split_words_holds_every_visible_character_once(text: str) -> None:
    spans = split_words(text)
    assert all(a < b for a, b in spans)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    covered = {i for a, b in spans for i in range(a, b)}
    assert covered == {i for i, c in enumerate(text) if not c.isspace()}


@given(st.text(alphabet="aeéo\u0301\u0308\u0327'’- "))
def test_split_words_never_cuts_an_accent_from_its_letter(text: str) -> None:
    for start, _ in split_words(text):
        assert start == 0 or text[start] not in "\u0301\u0308\u0327" or text[start - 1].isspace()
