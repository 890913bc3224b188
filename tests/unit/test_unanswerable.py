"""Moved questions: into their own article, where no answer stands, as many as asked for, the same every time."""

import pytest

from affinage.data.unanswerable import NEIGHBOURS, Question, moved_questions

ARTICLES = {
    "Bread": (
        "The baker of Arles kneads rye flour at dawn.",
        "Rye flour keeps longer than wheat in a dry loft.",
        "The oven is lit with vine wood every Friday.",
    ),
    "Rivers": ("The Sorne rises below the old mill.", "Two ferries cross it in summer.", "In winter the Sorne floods."),
}


def questions(*, titled: bool = True) -> list[Question]:
    found = []
    for title, contexts in ARTICLES.items():
        for i, context in enumerate(contexts):
            words = context.rstrip(".").split()
            answer = " ".join(words[-2:])
            place = ((answer, context.index(answer)),)
            found.append(Question(f"{title}{i}", f"What of {words[1]}?", context, place, title if titled else None))
    return found


def test_they_stay_in_their_article_and_leave_their_answer_behind() -> None:
    asked = {q.id: q for q in questions()}
    moved = list(moved_questions(list(asked.values()), share=0.5, seed=0))
    assert len(moved) == 6  # as many again: half of both together
    for one in moved:
        before = asked[one.id.removesuffix("-moved")]
        assert one.answers == ()
        assert one.question == before.question
        assert one.context in ARTICLES[before.title or ""]
        assert one.context != before.context
        assert before.answers[0][0].casefold() not in one.context.casefold()


def test_the_paragraph_nearest_in_words_is_taken() -> None:
    asked = questions()
    sorne = Question("q", "Where does the Sorne rise?", ARTICLES["Rivers"][0], (("old mill", 0),), "Rivers")
    (moved,) = moved_questions([*asked, sorne][-1:] + asked, share=1 / 8, seed=0)
    everything = list(moved_questions([*asked, sorne], share=0.5, seed=0))
    assert moved.id
    assert next(one for one in everything if one.id == "q-moved").context == ARTICLES["Rivers"][2]


def test_a_paragraph_with_any_accepted_answer_is_no_place() -> None:
    asked = questions()
    held = Question("q", "What keeps?", ARTICLES["Bread"][0], (("RYE  flour", 0), ("oven", 0)), "Bread")
    assert "q-moved" not in {one.id for one in moved_questions([*asked, held], share=0.6, seed=0)}


@pytest.mark.parametrize("share", [0.2, 1 / 3])
def test_the_share_is_that_of_both_together(share: float) -> None:
    asked = [Question(str(i), "What?", f"Paragraph {i} says {i}.", ((f"says {i}", 12),), "T") for i in range(120)]
    moved = list(moved_questions(asked, share=share, seed=1))
    assert len(moved) / (len(moved) + len(asked)) == pytest.approx(share, abs=0.01)
    assert moved == list(moved_questions(asked, share=share, seed=1))
    assert moved != list(moved_questions(asked, share=share, seed=2))


def test_without_titles_the_neighbours_are_the_article() -> None:
    asked = [Question(str(i), "What?", f"Paragraph {i} says {i}.", ((f"says {i}", 12),)) for i in range(60)]
    for one in moved_questions(asked, share=0.5, seed=0):
        here, there = int(one.id.removesuffix("-moved")), int(one.context.split()[1])
        assert 0 < abs(here - there) <= NEIGHBOURS
