"""Masking hides the share it is asked to, nothing special, and remembers what it hid."""

from itertools import permutations
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from affinage.data.masking import Masker, rarity
from affinage.data.pieces import starts_word
from affinage.recipe import Masking
from affinage.signals import IGNORED
from tiny import tiny_tokenizer

SIZE, MASK, SPECIALS = 100, 4, 5  # ids 0 to 4 are special; among the others, even ids start a word


def masker(**masking: float | bool) -> Masker:
    ids = np.arange(SIZE)
    return Masker(Masking.model_validate(masking), MASK, ids < SPECIALS, (ids % 2 == 0) | (ids < SPECIALS))


def weighted(counts: NDArray[np.int64], **masking: float) -> Masker:
    ids = np.arange(SIZE)
    asked = Masking.model_validate({"smoothing": 0.7, **masking})
    return Masker(asked, MASK, ids < SPECIALS, ids >= 0, rarity(counts, asked.smoothing or 0.0))


IDS = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=80).map(lambda ids: np.asarray(ids, dtype=np.int64))


@given(IDS, st.integers(0, 1000), st.floats(0.05, 1), st.booleans())
def test_labels_hold_the_original_and_nothing_else_changes(
    ids: NDArray[np.int64], seed: int, probability: float, whole: bool
) -> None:
    before = ids.copy()
    masked, labels = masker(probability=probability, whole_words=whole)(ids, np.random.default_rng(seed))
    assert np.array_equal(ids, before)
    hidden = labels != IGNORED
    assert np.array_equal(labels[hidden], ids[hidden]) and np.array_equal(masked[~hidden], ids[~hidden])
    assert not (hidden & (ids < SPECIALS)).any()
    assert ((masked[hidden] >= SPECIALS) | (masked[hidden] == MASK)).all()  # no special token is ever drawn
    assert hidden.any() or (ids < SPECIALS).all()


@given(IDS, st.integers(0, 1000), st.floats(0.05, 1))
def test_the_share_of_hidden_tokens_is_the_one_asked_for(ids: NDArray[np.int64], seed: int, probability: float) -> None:
    candidates = int((ids >= SPECIALS).sum())
    _, labels = masker(probability=probability)(ids, np.random.default_rng(seed))
    expected = max(1, round(probability * candidates)) if candidates else 0
    assert (labels != IGNORED).sum() == expected


@given(IDS, st.integers(0, 1000), st.floats(0.05, 1))
def test_whole_words_are_hidden_whole_or_not_at_all(ids: NDArray[np.int64], seed: int, probability: float) -> None:
    _, labels = masker(probability=probability, whole_words=True)(ids, np.random.default_rng(seed))
    words: list[list[int]] = []
    for place, number in enumerate(ids):
        if number < SPECIALS:
            words.append([])
        elif number % 2 == 0 or not words:
            words.append([place])
        else:
            words[-1].append(place)
    hidden = labels != IGNORED
    assert all(len({bool(hidden[place]) for place in word}) <= 1 for word in words)
    longest = max(map(len, words))
    assert hidden.sum() < max(1, round(probability * (ids >= SPECIALS).sum())) + max(longest, 1)


@given(IDS, st.integers(0, 1000), st.floats(0.05, 1))
def test_with_smoothing_the_share_is_that_of_all_tokens_rounded_up(
    ids: NDArray[np.int64], seed: int, probability: float
) -> None:
    masked, labels = weighted(np.arange(SIZE) ** 2, probability=probability)(ids, np.random.default_rng(seed))
    hidden = labels != IGNORED
    assert hidden.sum() == min(ceil(probability * len(ids)), (ids >= SPECIALS).sum())
    assert not (hidden & (ids < SPECIALS)).any()
    assert np.array_equal(labels[hidden], ids[hidden]) and np.array_equal(masked[~hidden], ids[~hidden])


def test_with_smoothing_tokens_are_drawn_one_by_one_in_proportion_to_their_rarity() -> None:
    """Against the sum over all orders in which three of five tokens can be drawn without replacement."""
    ids = np.array([0, 10, 11, 12, 13, 14, 1])
    counts = np.zeros(SIZE, np.int64)
    counts[10:15] = 0, 1, 20, 300, 4000  # never seen counts as once
    rate = np.array([1.0, 1.0, 20**-0.7, 300**-0.7, 4000**-0.7])
    expected = np.zeros(5)
    for order in permutations(range(5), 3):
        probability, left = 1.0, rate.sum()
        for token in order:
            probability *= rate[token] / left
            left -= rate[token]
        expected[list(order)] += probability
    times = 4000
    masks = weighted(counts, probability=0.4)  # 0.4 * 7 tokens, rounded up: 3
    seen = sum((masks(ids, np.random.default_rng(seed))[1] != IGNORED).astype(int) for seed in range(times))
    assert seen[0] == seen[-1] == 0
    assert (np.abs(seen[1:-1] / times - expected) < 4 * np.sqrt(expected * (1 - expected) / times)).all()


def test_a_smoothing_of_zero_makes_all_tokens_alike() -> None:
    assert np.array_equal(rarity(np.array([0, 1, 9]), 0.0), np.ones(3))


def test_smoothing_and_weights_go_together() -> None:
    with pytest.raises(ValueError, match="needs weights"):
        masker(smoothing=0.7)


@pytest.mark.parametrize("whole", [False, True])
def test_eighty_ten_ten(whole: bool) -> None:
    random = np.random.default_rng(0)
    ids = random.integers(SPECIALS, SIZE, size=(1000, 100))
    counts = np.zeros(3)
    shares = []
    for row, line in enumerate(ids):
        masked, labels = masker(whole_words=whole)(line, np.random.default_rng((7, 0, row)))
        hidden = labels != IGNORED
        shares.append(hidden.mean())
        to_mask, kept = masked[hidden] == MASK, masked[hidden] == line[hidden]
        counts += to_mask.sum(), (~to_mask & ~kept).sum(), kept.sum()
    n = counts.sum()
    expected = np.array([0.8, 0.1 * 94 / 95, 0.1 + 0.1 / 95])  # one random id in 95 is the original
    assert (np.abs(counts / n - expected) < 4 * np.sqrt(expected * (1 - expected) / n)).all()
    assert abs(np.mean(shares) - 0.15) < (0.02 if whole else 1e-9)  # the last word may exceed the share


def test_random_replacements_are_spread_over_the_vocabulary() -> None:
    line = np.full(4000, 50)
    masked, _ = masker(probability=1.0, mask=0.0, random=1.0)(line, np.random.default_rng(0))
    drawn = np.bincount(masked, minlength=SIZE)
    assert (drawn[:SPECIALS] == 0).all() and (drawn[SPECIALS:] > 0).all() and drawn.max() < 100


def test_every_place_is_equally_likely() -> None:
    line = np.full(20, 50)
    hidden = sum((masker()(line, np.random.default_rng(seed))[1] != IGNORED).astype(int) for seed in range(2000))
    assert (np.abs(hidden / 2000 - 0.15) < 4 * np.sqrt(0.15 * 0.85 / 2000)).all()


def test_the_generator_alone_decides() -> None:
    one, line = masker(), np.arange(SPECIALS, SIZE)
    same = [one(line, np.random.default_rng((0, 1, 2)))[0] for _ in range(2)]
    other = one(line, np.random.default_rng((0, 2, 2)))[0]
    assert np.array_equal(*same) and not np.array_equal(same[0], other)


@pytest.mark.parametrize(
    ("architecture", "beginning"),
    [("camembert", ["L", "'affinage"]), ("roberta", ["L", "'affinage"]), ("bert", ["L", "'", "affinage"])],
)
def test_words_of_real_vocabularies(architecture: str, beginning: list[str]) -> None:
    """Pieces joined from one word start to the next, accents that bytes split included."""
    tokenizer = tiny_tokenizer(architecture)
    flags = starts_word(tokenizer)
    assert len(flags) == max(tokenizer.get_vocab().values()) + 1
    assert all(flags[i] for i in tokenizer.all_special_ids)
    text = "L'affinage demande de la fraîcheur, dès l'aube."
    if architecture != "bert":
        text = text.replace(" l'aube", " aube")
    encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    words: list[tuple[int, int]] = []
    for number, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
        words = [*words, (begin, end)] if flags[number] or not words else [*words[:-1], (words[-1][0], end)]
    tail = ["l", "'", "aube", "."] if architecture == "bert" else ["aube", "."]
    expected = [*beginning, "demande", "de", "la", "fraîcheur", ",", "dès", *tail]
    assert [text[begin:end].strip() for begin, end in words] == expected
