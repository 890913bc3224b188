"""Whatever is written: a text whose pieces all stay is cut as before."""

import json
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from affinage.compression.vocabulary.pieces import needed_by, piece_counts, state_of, trimmed
from tiny import SENTENCES, tiny_tokenizer

KEPT = (*SENTENCES[:5], "ab ☃ baker's ☃☃ marchés")
WORDS = sorted({word for text in SENTENCES for word in text.split()} | {"☃", "aà☃", "mar", "chez"})


@lru_cache
def both(architecture: str) -> tuple[Tokenizer, Tokenizer, list[int]]:
    backend = tiny_tokenizer(architecture).backend_tokenizer
    state = state_of(backend)
    rows = sorted(needed_by(state, set(piece_counts(backend, KEPT)), backend, KEPT))
    return backend, Tokenizer.from_str(json.dumps(trimmed(state, rows))), rows


@pytest.mark.parametrize("architecture", ["camembert", "bert", "roberta"])
@given(words=st.lists(st.sampled_from(WORDS), max_size=5), joined=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_text_whose_pieces_all_stay_is_cut_as_before(architecture: str, words: list[str], joined: bool) -> None:
    before, after, rows = both(architecture)
    text = ("" if joined else " ").join(words)
    old, now = before.encode(text), after.encode(text)
    unknown = before.token_to_id("[UNK]")
    if set(old.ids) <= set(rows) and unknown not in old.ids:
        assert [rows[i] for i in now.ids] == old.ids
        assert now.offsets == old.offsets and now.type_ids == old.type_ids
    assert len(rows) > max(now.ids, default=0)
