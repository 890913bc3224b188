"""Documents of a corpus, and rows of two texts: what follows, what is random, and how they look."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affinage.data import documents
from affinage.data.documents import document_lines
from affinage.data.masking import Masker
from affinage.data.pair_rows import FOLLOWS, RANDOM, PairRows
from affinage.data.tokens import TokenStore
from affinage.errors import InputError
from affinage.recipe import Masking
from affinage.signals import IGNORED

CLS, SEP, PAD, MASK, SPECIAL = 0, 1, 2, 3, 4


def pair_rows(lengths: list[list[int]], *, row_length: int = 21, seed: int = 0, probability: float = 0.15) -> PairRows:
    """Of documents given by the tokens of their lines; every token is another number, in order."""
    flat = [n for document in lengths for n in (*document, 0)]  # an empty text behind each
    store = TokenStore(np.arange(SPECIAL, SPECIAL + sum(flat), dtype=np.int32), np.cumsum([0, *flat]))
    size = SPECIAL + sum(flat)
    masker = Masker(Masking(probability=probability), MASK, np.arange(size) < SPECIAL, np.ones(size, bool))
    return PairRows(store, masker, CLS, SEP, PAD, row_length, seed)


def document_of(rows: PairRows, token: int) -> int:
    ends = [int(b) for a, b in pairwise(rows.store.starts) if a == b]
    return sum(end <= token - SPECIAL for end in ends)


DOCUMENTS = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), min_size=2, max_size=6)


@settings(deadline=None)
@given(DOCUMENTS, st.integers(7, 40), st.integers(0, 3))
def test_a_row_is_two_texts_and_its_label_says_whether_they_follow(
    lengths: list[list[int]], size: int, epoch: int
) -> None:
    rows = pair_rows(lengths, row_length=size)
    covered: set[int] = set()
    for row in range(len(rows)):
        ids, segments, labels, place, types, label = rows[epoch, row]
        whole = np.where(labels == IGNORED, ids, labels)  # without the masks
        assert len(whole) <= size and place == (epoch, row) and (segments == 1).all()
        assert whole[0] == CLS and np.flatnonzero(whole == SEP).tolist() == [
            types.tolist().index(1) - 1,
            len(whole) - 1,
        ]
        assert (np.diff(types) >= 0).all() and set(types) == {0, 1}
        first, second = whole[1 : types.tolist().index(1) - 1], whole[types.tolist().index(1) : -1]
        assert len(first) and len(second)
        for text in (first, second):
            assert (np.diff(text) == 1).all()
            assert len({document_of(rows, int(token)) for token in text}) == 1
        same = document_of(rows, int(first[0])) == document_of(rows, int(second[0]))
        if label == FOLLOWS:
            assert same and second[0] == first[-1] + 1
        else:
            assert label == RANDOM and not same
        starts = set((rows.store.starts + SPECIAL).tolist())
        if max(max(document) for document in lengths) <= (size - 3) // 2:  # no line is cut
            assert {int(first[0]), int(second[0])} <= starts
        covered |= set(first.tolist()) | (set(second.tolist()) if label == FOLLOWS else set())
        masked = ids[ids != whole]
        assert ((labels == IGNORED) | (whole >= SPECIAL)).all() and (masked >= MASK).all()
    assert len(covered) >= len(rows)


def test_half_of_the_rows_follow_and_where_a_ends_changes_with_the_epoch() -> None:
    rows = pair_rows([[4] * 40] * 10, row_length=23)
    assert len(rows) == 10 * 8  # five lines of four tokens fill a row
    drawn = [rows[epoch, row] for epoch in range(10) for row in range(len(rows))]
    labels = np.array([item[5] for item in drawn])
    assert abs(labels.mean() - 0.5) < 0.06
    middles = np.array([item[4].tolist().index(1) for item in drawn]).reshape(10, -1)
    assert (middles.std(axis=0) > 0).mean() > 0.95
    assert np.unique(middles).tolist() == [6, 10, 14, 18]
    lengths = {label: {len(item[0]) for item in drawn if item[5] == label} for label in (FOLLOWS, RANDOM)}
    assert lengths[FOLLOWS] == {23} and max(lengths[RANDOM]) == 23
    assert rows.tokens == 10 * 160 + 3 * len(rows)
    others = {document_of(rows, int(item[0][-2])) for item in drawn[:8] if item[5] == RANDOM and item[2][-2] == IGNORED}
    assert 0 not in others


def test_an_item_depends_on_seed_epoch_and_row_alone() -> None:
    def item(rows: PairRows, epoch: int, row: int) -> list[list[int]]:
        return [np.asarray(part).tolist() for part in rows[epoch, row]]

    one, other = pair_rows([[3] * 9] * 4), pair_rows([[3] * 9] * 4, seed=1)
    [item(one, 0, row) for row in range(len(one))]
    assert item(one, 1, 2) == item(pair_rows([[3] * 9] * 4), 1, 2)
    drawn = {str(item(rows, epoch, 2)) for rows in (one, other) for epoch in (0, 1, 2)}
    assert len(drawn) == 6


def test_a_batch_is_padded_and_says_types_and_labels() -> None:
    rows = pair_rows([[4, 4], [5] * 6, [2]])
    items = [rows[0, row] for row in range(len(rows))]
    batch = rows.collate(items)
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        **{name: (len(rows), 21) for name in ("input_ids", "segments", "labels", "token_type_ids")},
        "places": (len(rows), 2),
        "follows": (len(rows),),
    }
    for i, (ids, _, _, _, types, label) in enumerate(items):
        assert batch["input_ids"][i].tolist() == [*ids.tolist(), *[PAD] * (21 - len(ids))]
        assert batch["token_type_ids"][i].tolist() == [*types.tolist(), *[0] * (21 - len(ids))]
        assert batch["segments"][i].sum() == len(ids)
        assert batch["follows"][i] == label
    assert batch["follows"][-1] == RANDOM  # its row has one line, and nothing follows


def test_one_document_is_too_few() -> None:
    with pytest.raises(InputError, match=r"the held-out text is of one document.*put empty lines between"):
        pair_rows([[4] * 50]).check("held-out")
    pair_rows([[4], [4]]).check("training")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_documents_end_at_empty_lines_and_with_files(tmp_path: Path) -> None:
    one = write(tmp_path / "a.txt", "\n\nun\ndeux\n \n\ntrois\r\nquatre")
    two = write(tmp_path / "b.txt", "cinq\n")
    found = list(document_lines([one, two], share=0, held_out=False))
    assert found == ["un", "deux", "", "trois", "quatre", "", "cinq", ""]
    assert list(document_lines([one, two], share=0, held_out=True)) == []


def test_a_row_of_a_table_is_a_document(tmp_path: Path) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    parquet.write_table(arrow.table({"text": ["un\ndeux", "trois", None, "quatre"]}), tmp_path / "a.parquet")
    found = list(document_lines([tmp_path / "a.parquet"], share=0, held_out=False))
    assert found == ["un", "deux", "", "trois", "", "quatre", ""]


def test_passages_are_held_out_whole_and_part_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PASSAGE", 3)
    lines = [f"ligne {i}" for i in range(200)]
    text = write(tmp_path / "a.txt", "\n".join(lines))
    train, held = (list(document_lines([text], share=0.3, held_out=part)) for part in (False, True))
    assert sorted(line for line in [*train, *held] if line) == sorted(lines)
    assert 20 < sum(map(bool, held)) < 120
    for part in (train, held):
        assert part[0] and not part[-1]
        for before, after in pairwise(part):
            if before and after:
                assert lines.index(after) == lines.index(before) + 1
            assert before or after
        for number, line in enumerate(line for line in part if line):
            assert number % 3 or lines.index(line) % 3 == 0
