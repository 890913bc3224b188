"""Methods on the real student, and vocabulary trimming on real tokenizers of all three kinds: slow tests."""

import gzip
import json
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from affinage.compression.base import Resources
from affinage.compression.vocabulary.pieces import needed_by, piece_counts, state_of, trimmed
from affinage.evaluation.footprint import footprint, model_entry, tensor_bytes
from affinage.models.checkpoint import load_masked_lm, load_model, load_tokenizer
from affinage.models.storage import save_model
from compressing import built
from shared_data import DATA, needs_shared_data

STUDENT = "shipped:student"
TABLES: dict[str, dict[str, Any]] = {
    "light-rnn": {},
    "quotient-remainder": {"keep": 0.25},
    "tensor-train": {"parts": "embeddings", "keep": 0.25},
    "slim-embeddings": {},
    "west": {},
    "pq-embeddings": {},
    "int4-embeddings": {},
    "svd": {"parts": "embeddings", "keep": 0.5},
}
MAPS: dict[str, dict[str, Any]] = {
    "int8": {},
    "k-means": {"bits": 3},
    "kronecker": {"parts": "linears"},
    "prune-n-m": {"n": 2, "m": 4},
    "share-layers": {"groups": 1},
    "drop-layers": {"keep": 2},
}


@cache
def student() -> PreTrainedModel:
    return load_masked_lm(STUDENT)[0].eval()


def said(model: PreTrainedModel) -> torch.Tensor:
    ids = torch.tensor([[0, *range(40, 60), 2]])
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TABLES, *MAPS])
def test_bytes_on_disk_are_those_counted_and_reported(name: str, tmp_path: Path) -> None:
    made = built(name, **{**TABLES, **MAPS}[name]).apply(student(), Resources())
    save_model(made, tmp_path)
    load_tokenizer(STUDENT).save_pretrained(tmp_path)
    files = list(tmp_path.glob("*.safetensors"))
    sizes = 0
    for file in files:
        with safe_open(file, framework="pt") as stored:
            sizes += sum(stored.get_tensor(key).nbytes for key in stored.keys())  # noqa: SIM118 (no mapping)
    assert sizes == tensor_bytes(made) == footprint(made).size_bytes == model_entry(made, name="m", path="m").size_bytes
    assert sizes <= sum(file.stat().st_size for file in files) < sizes + 100_000  # the header
    assert sizes < tensor_bytes(student())
    again = load_model(tmp_path)
    assert torch.equal(said(again), said(made)) and said(made).isfinite().all()
    assert footprint(again).parameters == footprint(made).parameters


@cache
def lines(*parts: str) -> tuple[str, ...]:
    with gzip.open(DATA.joinpath(*parts), "rt", encoding="utf-8") as stream:
        found = (json.loads(line) for line in islice(stream, 1500))
        return tuple(str(row.get("text") or row.get("sentence")) for row in found)


def unigram() -> tuple[Tokenizer, tuple[str, ...]]:
    made = Tokenizer.from_file(str(DATA / "tokenizers" / "camembert" / "tokenizer.json"))
    return made, lines("fr", "sentiment", "reviews", "train.jsonl.gz")


def word_piece() -> tuple[Tokenizer, tuple[str, ...]]:
    words = (DATA / "tokenizers" / "bert-base-uncased-vocab.txt").read_text(encoding="utf-8").splitlines()
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"])
    ends = {token: words.index(token) for token in ("[SEP]", "[CLS]")}
    made.post_processor = processors.BertProcessing(("[SEP]", ends["[SEP]"]), ("[CLS]", ends["[CLS]"]))
    return made, lines("en", "glue", "sst2", "train.jsonl.gz")


def bpe() -> tuple[Tokenizer, tuple[str, ...]]:
    texts = lines("fr", "sentiment", "reviews", "train.jsonl.gz")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=8000, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return made, texts[:200]


@needs_shared_data
@pytest.mark.slow
@pytest.mark.parametrize("kind", [unigram, word_piece, bpe], ids=["Unigram", "WordPiece", "byte-level BPE"])
def test_real_tokenizers_cut_kept_text_as_before(kind: Any) -> None:
    tokenizer, texts = kind()
    state = state_of(tokenizer)
    rows = sorted(needed_by(state, set(piece_counts(tokenizer, texts)), tokenizer, texts))
    assert len(rows) < 0.75 * tokenizer.get_vocab_size()
    made = Tokenizer.from_str(json.dumps(trimmed(state, rows)))
    for old, new in zip(tokenizer.encode_batch(list(texts)), made.encode_batch(list(texts)), strict=True):
        assert [rows[i] for i in new.ids] == old.ids and new.offsets == old.offsets and new.tokens == old.tokens


@needs_shared_data
@pytest.mark.slow
def test_the_real_student_says_the_same_with_the_words_that_it_needs() -> None:
    texts = lines("fr", "sentiment", "reviews", "valid.jsonl.gz")
    tokenizer = load_tokenizer(STUDENT)
    made, shorter = built("trim-vocabulary").apply_with_tokenizer(student(), tokenizer, Resources(texts=texts))
    assert isinstance(shorter, PreTrainedTokenizerFast) and len(shorter) < 0.75 * len(tokenizer)
    kept = [tokenizer.convert_tokens_to_ids(piece) for piece in shorter.convert_ids_to_tokens(range(len(shorter)))]
    for text in texts[:20]:
        old, new = (cut(text, truncation=True, max_length=64, return_tensors="pt") for cut in (tokenizer, shorter))
        with torch.no_grad():
            whole = student()(old.input_ids).logits[..., kept]
            torch.testing.assert_close(made(new.input_ids).logits, whole, rtol=1e-4, atol=1e-4)
