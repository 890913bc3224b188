"""FlauBERT's slow tokenizer, as a BPE: the same ids, or it says so and what needs offsets is refused."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import FlaubertTokenizer

from affinage.errors import InputError
from affinage.models import flaubert_tokenizer as flaubert
from affinage.models.checkpoint import load_tokenizer
from affinage.runtime.predictor import load
from affinage.workflows.export import export
from affinage.workflows.task_run import read_task_run
from tiny import SENTENCES, save_tiny, tiny_model
from tiny_data import write_rows

HARD = (
    "M. Dupont et Mme Martin sont partis vers 8 h. Ils reviendront p. ex. demain, à 18h30.",
    "« Qu'est-ce que c'est ? », dit-elle… puis : « Rien ! »",
    "L'U.R.S.S. et l'O.N.U. (en 1945) comptaient 1,5 million — ou 2 000 — d'hommes, soit 50 %.",
    "Aujourd'hui, l’eau coûte 3,20 € le m³ ; hier... 2,90 €.",
    "Écrire à jean.martin@exemple.fr avant le 3. Puis attendre.",
)
DIFFERENT = "'tain, quel froid."
"""an apostrophe that begins a text: Moses' rule wants a sign before it"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny FlauBERT with vocab.json and merges.txt, as the hub has it."""
    return own_files(save_tiny(tmp_path, "flaubert"))


def own_files(folder: Path, *, lower: bool = False) -> Path:
    """FlauBERT's own files in place of a tokenizer.json: the letters of the texts here and some merges."""
    for file in folder.glob("tokenizer*"):
        file.unlink()
    letters = {c for text in (*SENTENCES, *HARD, *flaubert.sample()) for c in text + text.lower() if not c.isspace()}
    merges = [("e", "s</w>"), ("l", "e</w>"), ("d", "e</w>"), ("o", "u"), ("l", "'</w>"), (".", "."), ("..", ".</w>")]
    special = ["<s>", "</s>", "<pad>", "<unk>", *(f"<special{i}>" for i in range(10))]
    ends = [f"{letter}</w>" for letter in sorted(letters)]
    pieces = dict.fromkeys([*special, *sorted(letters), *ends, *("".join(pair) for pair in merges)])
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    counted = "".join(f"{a} {b} {100 - i}\n" for i, (a, b) in enumerate(merges))
    (folder / "merges.txt").write_text(counted, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lowercase": lower}), encoding="utf-8")
    sizes = {"vocab_size": len(vocabulary), "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1}
    tiny_model("flaubert", "mlm", **sizes).save_pretrained(folder)
    return folder


def slow(folder: Path, **settings: bool) -> FlaubertTokenizer:
    return FlaubertTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), **settings)


@pytest.mark.parametrize("lower", [False, True])
def test_the_same_ids_as_the_slow_one(tmp_path: Path, lower: bool) -> None:
    folder = own_files(save_tiny(tmp_path, "flaubert"), lower=lower)
    fast, theirs = load_tokenizer(folder), slow(folder, do_lowercase=lower)
    assert flaubert.differs(fast) is None
    for text in (*SENTENCES, *HARD):
        assert fast(text)["input_ids"] == theirs(text)["input_ids"], text
    pair = SENTENCES[0], HARD[0]
    assert fast(*pair)["input_ids"] == theirs(*pair)["input_ids"]
    assert fast.mask_token_id == theirs.mask_token_id and fast.pad_token_id == theirs.pad_token_id


def test_offsets_are_of_the_text_as_it_came(folder: Path) -> None:
    text = HARD[1]
    encoded = load_tokenizer(folder).backend_tokenizer.encode(text)
    words = [text[a:b] for a, b in encoded.offsets if b > a]
    assert "".join(words).replace(" ", "") == text.replace(" ", "") and "?" in words


def test_where_they_differ_it_is_said_and_kept(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(flaubert, "sample", lambda: [SENTENCES[0], DIFFERENT])
    fast = load_tokenizer(folder)
    assert flaubert.differs(fast) == "1 of 2 texts"
    found = flaubert.agreement(fast.backend_tokenizer, slow(folder), [*HARD, DIFFERENT])
    assert found.differing == (DIFFERENT,) and str(found) == "1 of 6 texts"
    again = save_tiny(tmp_path / "again", "flaubert")
    fast.save_pretrained(again)
    assert flaubert.differs(load_tokenizer(again)) == "1 of 2 texts"


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("ner", {"tokens": ["Claire", "part"], "tags": ["B-PER", "O"]}),
        ("qa", {"context": "Un train.", "question": "Quoi ?", "answers": {"text": ["train"], "answer_start": [3]}}),
    ],
)
def test_what_needs_offsets_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str, row: dict[str, object]
) -> None:
    monkeypatch.setattr(flaubert, "sample", lambda: [DIFFERENT])
    rows: Sequence[dict[str, object]] = [row] * 4
    write_rows(tmp_path / "train.jsonl", rows)
    with pytest.raises(InputError, match=rf"task '{task}' needs a fast tokenizer with offsets.*1 of 1 texts"):
        read_task_run(folder, task=task, data=tmp_path / "train.jsonl", recipe="finetune")


def test_the_runtime_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(flaubert, "sample", lambda: [DIFFERENT])
    with pytest.raises(InputError, match=r"the runtime needs a fast tokenizer .* other pieces of 1 of 1 texts"):
        load(folder)
    with pytest.raises(InputError, match="the runtime needs a fast tokenizer"):
        export(folder, out=tmp_path / "out")


def test_whole_texts_are_not_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(flaubert, "sample", lambda: [DIFFERENT])
    write_rows(tmp_path / "train.jsonl", [{"text": t, "label": i % 2} for i, t in enumerate(SENTENCES)])
    run = read_task_run(folder, task="sentiment", data=tmp_path / "train.jsonl", recipe="finetune")
    assert run.tokenizer.cls_token == "<s>" and run.rows


def test_without_sacremoses_the_cure_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(InputError, match=r"pip install 'affinage\[flaubert\]', or put a tokenizer\.json"):
        load_tokenizer(folder)


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 0}'])
def test_files_that_are_none_of_flauberts(folder: Path, text: str) -> None:
    (folder / "vocab.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"vocab\.json"):
        load_tokenizer(folder)
