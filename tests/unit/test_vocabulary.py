"""The vocabulary that pre-training learns, and what its pieces are in another one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from affinage.data.pieces import parts_in, pieces_of, starts_word
from affinage.data.vocabulary import SPECIAL_TOKENS, train_unigram, train_vocabulary
from affinage.errors import InputError
from affinage.recipe import TokenizerSpec
from tiny import ARCHITECTURES, SENTENCES, tiny_tokenizer


def test_special_tokens_have_camemberts_ids_and_roles() -> None:
    tokenizer = tiny_tokenizer("camembert")
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    roles = ("cls", "pad", "sep", "unk", "mask")
    assert [getattr(tokenizer, f"{role}_token_id") for role in roles] == [0, 1, 2, 3, 4]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 2)
    assert tokenizer.model_max_length == 64
    assert max(tokenizer.get_vocab().values()) == len(tokenizer) - 1


def test_one_text_and_two_get_camemberts_template() -> None:
    tokenizer = tiny_tokenizer("camembert")
    first, second = (tokenizer(text, add_special_tokens=False).input_ids for text in SENTENCES[:2])
    assert tokenizer(SENTENCES[0]).input_ids == [0, *first, 2]
    pair = tokenizer(SENTENCES[0], SENTENCES[1])
    assert pair.input_ids == [0, *first, 2, 2, *second, 2]
    assert set(pair.keys()) == {"input_ids", "attention_mask"}


def test_a_masked_word_is_one_token_with_its_space() -> None:
    tokenizer = tiny_tokenizer("camembert")
    left, right = (tokenizer(text, add_special_tokens=False).input_ids for text in ("Le petit", "du village"))
    found = tokenizer("Le petit <mask> du village", add_special_tokens=False).input_ids
    assert found[: len(left) + 1] == [*left, 4] and found.count(4) == 1 and found[-2:] == right[-2:]


def test_a_frequent_word_that_is_part_of_no_other_becomes_a_piece() -> None:
    """Left alone, the trainer takes as candidates only what occurs in two different words."""
    lines = [f"{word} chez quelqu'un" for word in SENTENCES[0].split() for _ in range(30)]
    vocabulary = train_unigram(lines, TokenizerSpec(vocab_size=50), max_length=64).get_vocab()
    assert "▁chez" in vocabulary


def test_no_piece_crosses_punctuation_or_an_apostrophe() -> None:
    lines = ["l'école, l'école. (l'école) aujourd'hui!"] * 40 + list(SENTENCES)
    tokenizer = train_unigram(lines, TokenizerSpec(vocab_size=90), max_length=64)
    for piece in set(tokenizer.get_vocab()) - set(SPECIAL_TOKENS):
        bare = piece.lstrip("▁")
        assert "'" not in bare[:-1], piece
        assert len(bare) <= 1 or bare.rstrip("'").isalnum(), piece


def test_the_same_lines_give_the_same_vocabulary() -> None:
    one, two = (train_unigram(SENTENCES * 3, TokenizerSpec(vocab_size=150), max_length=64) for _ in range(2))
    assert one.backend_tokenizer.to_str() == two.backend_tokenizer.to_str()


@pytest.mark.parametrize(
    "text", ["Aujourd’hui, l’été…", "ﬁn\tde  ligne", "e\u0301te\u0301", " ", "日本 😀 l'", "A" * 300]
)
def test_offsets_point_into_the_text_as_given(text: str) -> None:
    encoding = tiny_tokenizer("camembert").backend_tokenizer.encode(text, add_special_tokens=False)
    ends = [0]
    for begin, end in encoding.offsets:
        assert ends[-1] - 1 <= begin <= end <= len(text)
        ends.append(end)
    covered = {i for begin, end in encoding.offsets for i in range(begin, end)}
    assert all(i in covered for i, character in enumerate(text) if character.isalnum())


@given(st.text(max_size=40))
def test_any_text_can_be_encoded_to_known_ids(text: str) -> None:
    tokenizer = tiny_tokenizer("camembert")
    ids = tokenizer(text).input_ids
    assert ids[0] == 0 and ids[-1] == 2 and max(ids) < len(tokenizer)


def test_a_text_of_known_letters_comes_back() -> None:
    tokenizer = tiny_tokenizer("camembert")
    for sentence in SENTENCES:
        assert tokenizer.decode(tokenizer(sentence).input_ids, skip_special_tokens=True) == sentence


def test_saved_and_loaded_it_gives_the_same_ids(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("camembert")
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*SENTENCES, "Été <mask> 😀", "l’heure\tmême"]
    assert loaded(texts).input_ids == tokenizer(texts).input_ids
    assert loaded(texts, texts[::-1]).input_ids == tokenizer(texts, texts[::-1]).input_ids
    assert (loaded.is_fast, loaded.model_max_length, loaded.mask_token_id) == (True, 64, 4)
    assert starts_word(loaded) == starts_word(tokenizer)


@pytest.mark.parametrize("lines", [[], ["", " "], ["a"], ["un deux"]])
def test_too_little_text_is_refused(lines: list[str]) -> None:
    with pytest.raises(InputError, match=r"vocabulary could not be trained|pieces of the 500 asked for"):
        train_unigram(lines, TokenizerSpec(vocab_size=500), max_length=64)


def test_only_the_bytes_asked_for_are_read() -> None:
    read = 0

    def lines() -> Iterator[str]:
        nonlocal read
        for sentence in SENTENCES * 100:
            read += 1
            yield sentence

    train_unigram(lines(), TokenizerSpec(vocab_size=150, training_bytes=3000), max_length=64)
    assert 30 < read < 60


def test_the_text_of_a_vocabulary_is_spread_over_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"phrase numéro {i} du corpus" for i in range(2_000)]
    files: list[Path | str] = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for file, half in zip(files, (lines[:1_000], lines[1_000:]), strict=True):
        Path(file).write_text("\n".join(half), encoding="utf-8")
    given: dict[int, list[str]] = {}

    def train(chosen: Iterator[str], spec: TokenizerSpec, *, max_length: int) -> PreTrainedTokenizerFast:
        given[spec.training_bytes] = list(chosen)
        assert max_length == 64
        return tiny_tokenizer()

    monkeypatch.setattr("affinage.data.vocabulary.train_unigram", train)
    total = sum(len(line.encode()) for line in lines)
    for budget in (total // 4, total, 10 * total):
        train_vocabulary(files, TokenizerSpec(vocab_size=150, training_bytes=budget), max_length=64)
    assert given[total] == given[10 * total] == lines
    part = given[total // 4]
    assert 0.2 < len(part) / len(lines) < 0.3
    assert 0.4 < sum(line in set(lines[:1_000]) for line in part) / len(part) < 0.6


def wordpieces(*pieces: str) -> PreTrainedTokenizerFast:
    vocabulary = {piece: i for i, piece in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces))}
    return named(Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")))


def named(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    names = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{f"{k}_token": v for k, v in names.items()})


def test_parts_by_hand() -> None:
    old = wordpieces("fro", "##mage", "chat", "##s", ",", "mage")
    new = wordpieces("chats", "mage", "##mage", "##s", "fromage", "zut", ",", "##chat")
    ids = old.get_vocab()
    found = dict(zip(new.convert_ids_to_tokens(range(len(new))), parts_in(old, new), strict=True))
    assert found["chats"] == [ids["chat"], ids["##s"]]
    assert (found["mage"], found["##mage"]) == ([ids["mage"]], [ids["##mage"]])
    assert (found["##s"], found[","]) == ([ids["##s"]], [ids[","]])
    assert found["fromage"] == [ids["fro"], ids["##mage"]]
    assert found["zut"] == []
    assert found["##chat"] == [ids["chat"]]  # no such continuation: what the text is by itself
    assert [found[token] for token in ("[PAD]", "[MASK]")] == [[0], [4]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_piece_is_itself_in_its_own_vocabulary(architecture: str) -> None:
    tokenizer = tiny_tokenizer(architecture)
    fragments = {i for i, piece in pieces_of(tokenizer).items() if not piece.text}
    found = parts_in(tokenizer, tokenizer)
    assert len(found) == len(tokenizer)
    assert all(parts == [i] for i, parts in enumerate(found) if i not in fragments)
    assert len(fragments) < (140 if architecture == "roberta" else 2)


@pytest.mark.parametrize("new", ARCHITECTURES[:3])
@pytest.mark.parametrize("old", ARCHITECTURES[:3])
def test_parts_across_vocabularies_of_all_kinds(old: str, new: str) -> None:
    """Roles meet; a shared word is one piece; the parts of any piece spell its text."""
    ours, theirs = tiny_tokenizer(new), tiny_tokenizer(old)
    found = parts_in(theirs, ours)
    for role in ("cls", "pad", "sep", "unk", "mask"):
        assert found[getattr(ours, f"{role}_token_id")] == [getattr(theirs, f"{role}_token_id")]
    marks = {"camembert": "▁", "roberta": "Ġ", "bert": ""}
    for word in ("de", "the"):
        piece, same = marks[new] + word, marks[old] + word
        assert piece in ours.get_vocab() and same in theirs.get_vocab()
        assert found[ours.get_vocab()[piece]] == [theirs.get_vocab()[same]], piece
    spelt = 0
    old_pieces = pieces_of(theirs)
    for index, piece in pieces_of(ours).items():
        texts = [old_pieces[part].text for part in found[index] if part in old_pieces]
        if piece.spaced and piece.text[:1].isalnum() and found[index]:
            assert old_pieces[found[index][0]].spaced, (piece, texts)
        if all(texts) and len(texts) == len(found[index]) and texts:
            lower = piece.text.lower() if old == "bert" else piece.text
            assert "".join(texts) in (piece.text, lower, strip_accents(lower)), (piece, texts)
            spelt += 1
    assert spelt > 80


def strip_accents(text: str) -> str:
    from unicodedata import category, normalize

    return "".join(c for c in normalize("NFD", text) if category(c) != "Mn")


def test_a_hash_in_another_kind_of_vocabulary_is_a_hash() -> None:
    """RoBERTa's real vocabulary has a piece `##`: it is not WordPiece for that."""
    model = models.BPE(
        vocab={"[UNK]": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "##": 5, "Ġ": 6, "a": 7}, merges=[]
    )
    tokenizer = named(Tokenizer(model))
    assert starts_word(tokenizer)[5:] == [True, True, False]


def test_bytes_of_accents_and_quotation_marks() -> None:
    pieces = {"Ġ": 5, "ĠÃ©": 6, "Ã©": 7, "Â«": 8, "©": 9, "ĠÂ«": 10, "Ã": 11, ",": 12}
    special = {"[UNK]": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    tokenizer = named(Tokenizer(models.BPE(vocab=special | pieces, merges=[])))
    found = pieces_of(tokenizer)
    assert [found[i].text for i in range(6, 13)] == ["é", "é", "«", "", "«", "", ","]
    assert starts_word(tokenizer)[6:] == [True, False, True, False, True, False, True]
