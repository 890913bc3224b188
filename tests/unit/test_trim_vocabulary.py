"""A trimmed vocabulary: what keeps all its pieces is cut and computed as before, by all three kinds of tokenizers."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast

from affinage.compression.base import Resources
from affinage.compression.vocabulary.pieces import needed_by, piece_counts, state_of, trimmed
from affinage.compression.vocabulary.trimming import keep_rows_
from affinage.errors import InputError
from affinage.signals import Batch
from compressing import built, logits
from shared_data import DATA, needs_shared_data
from tiny import FAMILIES, SENTENCES, tiny_model, tiny_tokenizer

KINDS = {"camembert": "Unigram", "roberta": "byte-level BPE", "bert": "WordPiece"}
TEXTS = (*SENTENCES[:3], "Le ☃ du Ǽ village, jurassienne et l'aube.", "")


def cut_down(tokenizer: PreTrainedTokenizerFast, texts: tuple[str, ...]) -> tuple[Tokenizer, list[int]]:
    backend = tokenizer.backend_tokenizer
    state = state_of(backend)
    rows = sorted(needed_by(state, set(piece_counts(backend, texts)), backend, texts))
    return Tokenizer.from_str(json.dumps(trimmed(state, rows))), rows


@pytest.mark.parametrize("architecture", KINDS, ids=KINDS.get)
def test_kept_text_gives_the_same_outputs(architecture: str, tmp_path: Path) -> None:
    model, tokenizer = tiny_model(architecture), tiny_tokenizer(architecture)
    before = deepcopy(model.state_dict())
    small, shorter = built("trim-vocabulary").apply_with_tokenizer(model, tokenizer, Resources(texts=TEXTS))
    assert small.config.vocab_size == len(shorter) < len(tokenizer)
    small.save_pretrained(tmp_path)
    shorter.save_pretrained(tmp_path)
    stock, loaded = AutoModelForMaskedLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    new = {tokenizer.convert_tokens_to_ids(piece): i for piece, i in loaded.get_vocab().items()}
    assert sorted(new.values()) == list(range(len(loaded)))
    mask = str(tokenizer.mask_token)
    for text in (*TEXTS, f"Le petit {mask} du village ouvre{mask}."):
        old, now = tokenizer(text), loaded(text)
        assert [new[i] for i in old.input_ids] == now.input_ids
        assert tokenizer.convert_ids_to_tokens(old.input_ids) == loaded.convert_ids_to_tokens(now.input_ids)
        batches = []
        for ids in (old.input_ids, now.input_ids):
            rows = torch.tensor([ids])
            batches.append(Batch(input_ids=rows, mask=torch.ones_like(rows, dtype=torch.bool)))
        with torch.no_grad():
            whole, left = logits(model, batches[0]), logits(stock, batches[1])
        torch.testing.assert_close(whole[..., sorted(new)], left, rtol=1e-6, atol=1e-7)
    for name in ("pad", "cls", "sep", "mask", "unk"):
        assert getattr(loaded, f"{name}_token_id") == new[getattr(tokenizer, f"{name}_token_id")]
    assert stock.config.pad_token_id == loaded.pad_token_id
    old, now = (cut("ouvre", "un train", return_offsets_mapping=True) for cut in (tokenizer, loaded))
    assert max(now.input_ids) < len(loaded)
    assert sorted(old.keys()) == sorted(now.keys())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_word_unknown_to_wordpiece_stays_unknown() -> None:
    """ "abb" begins with "ab", after which nothing fits. Were "ab" gone, it would be "a", "##bb"."""
    vocabulary = {piece: i for i, piece in enumerate(("[UNK]", "a", "ab", "c", "d", "##bb"))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[UNK]")
    made, rows = cut_down(fast, ("abb", "a", "cbb"))
    assert rows == [0, 1, 2, 3, 5]
    assert [made.encode(text).tokens for text in ("abb", "cbb", "d")] == [["[UNK]"], ["c", "##bb"], ["[UNK]"]]


def test_unknown_characters_of_a_unigram_cost_what_they_did() -> None:
    """An unknown character scores 10 less than the least probable piece: -40 here, -28 were "z" gone. Then "a" as an
    unknown one and "bcd", -29, would be better than "ab" and "cd", -36."""
    pieces = [("<unk>", 0.0), ("ab", -18.0), ("cd", -18.0), ("bcd", -1.0), ("e", -2.0), ("z", -30.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<unk>")
    made, rows = cut_down(fast, ("abcd", "bcd"))
    assert rows == [0, 1, 2, 3, 5]
    assert made.encode("abcd").tokens == tokenizer.encode("abcd").tokens == ["ab", "cd"]


def test_a_bpe_keeps_the_merges_that_lead_to_a_piece() -> None:
    vocabulary = {piece: i for i, piece in enumerate(("<unk>", "a", "b", "c", "ab", "bc", "abc", "cc", "abcc"))}
    merges = [("a", "b"), ("b", "c"), ("ab", "c"), ("c", "c"), ("ab", "cc")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<unk>")
    made, rows = cut_down(fast, ("abc",))
    assert [vocabulary[piece] for piece in ("<unk>", "a", "b", "c", "ab", "abc")] == rows
    assert made.encode("abc").tokens == ["abc"]
    assert made.encode("bc").tokens == ["b", "c"]


def test_only_what_comes_often_enough_stays() -> None:
    model, tokenizer = tiny_model("camembert"), tiny_tokenizer("camembert")
    sizes = []
    for count in (1, 3, 100):
        method = built("trim-vocabulary", min_count=count)
        small, _ = method.apply_with_tokenizer(model, tokenizer, Resources(texts=SENTENCES))
        sizes.append(small.config.vocab_size)
    assert sizes[0] > sizes[1] > sizes[2] >= 5


@pytest.mark.parametrize("architecture", [*FAMILIES, "mobilebert"])
def test_every_family_keeps_its_rows(architecture: str) -> None:
    model = tiny_model(architecture)
    small = deepcopy(model)
    rows = [*range(8), *range(9, model.config.vocab_size, 7)]
    keep_rows_(small, rows)
    ids = torch.tensor([[3, 8, 15, 4]])
    seen = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        small_logits = logits(small, Batch(input_ids=ids, mask=seen))
        logits_before = logits(model, Batch(input_ids=torch.tensor([[rows[i] for i in ids[0]]]), mask=seen))
    assert small.config.vocab_size == len(rows) == small_logits.shape[-1]
    torch.testing.assert_close(small_logits, logits_before[..., rows], rtol=1e-6, atol=1e-7)
    assert {name: value.shape for name, value in small.state_dict().items()} == {
        name: value.shape for name, value in type(model)(small.config).state_dict().items()
    }
    assert dict(small.named_parameters()).keys() == dict(model.named_parameters()).keys()  # what is tied stays so


@needs_shared_data
def test_camemberts_own_tokenizer_with_its_double_entries() -> None:
    folder = DATA / "tokenizers" / "camembert"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), unk_token="<unk>", pad_token="<pad>", mask_token="<mask>"
    )
    made, rows = cut_down(tokenizer, TEXTS)
    assert len(rows) < 400 and rows[:7] == list(range(7))
    for text in (*TEXTS, "Le petit <mask> ouvre."):
        assert [rows[i] for i in made.encode(text).ids] == tokenizer.backend_tokenizer.encode(text).ids


def test_what_cannot_be_trimmed_is_refused() -> None:
    model, tokenizer = tiny_model("bert"), tiny_tokenizer("bert")
    method = built("trim-vocabulary")
    for texts in (None, (), ("", " ")):
        with pytest.raises(InputError, match="keeps what a corpus uses"):
            method.apply_with_tokenizer(model, tokenizer, Resources(texts=texts))
    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), pad_token="a", unk_token="a"
    )
    with pytest.raises(InputError, match="kind WordLevel cannot be trimmed"):
        method.apply_with_tokenizer(model, words, Resources(texts=("a",)))
