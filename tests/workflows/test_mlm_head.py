"""A vocabulary head for an encoder without one: the encoder stays bit by bit, then both are trained."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForMaskedLM

import affinage.workflows.demo_steps as demo_steps
from affinage.errors import InputError
from affinage.models.checkpoint import load_tokenizer
from affinage.workflows.demo import demo
from affinage.workflows.pretrain import pretrain
from tiny import save_tiny
from tiny_data import ON_TEXT, write_corpus, write_task


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path, "bert", "base")


def test_the_head_is_trained_alone_then_both(encoder: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", lines=200)
    pretrain([corpus], out=tmp_path / "head", recipe="mlm-head", init_from=encoder, overrides=ON_TEXT, quiet=True)
    before, _ = AutoModelForMaskedLM.from_pretrained(encoder, output_loading_info=True)
    model, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "head", output_loading_info=True)
    assert not info["missing_keys"]
    ours, theirs = model.bert.state_dict(), before.bert.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.bias.abs().sum() > 0  # it starts at 0
    assert "num_hidden_layers: 4" in (tmp_path / "head" / "recipe.yaml").read_text()

    head, both = tmp_path / "head", tmp_path / "both"
    pretrain([corpus], out=both, recipe="mlm-together", init_from=head, overrides=ON_TEXT, quiet=True)
    after = AutoModelForMaskedLM.from_pretrained(both).bert.state_dict()
    assert not torch.equal(after["encoder.layer.0.output.dense.weight"], ours["encoder.layer.0.output.dense.weight"])


def test_a_frozen_encoder_must_come_from_somewhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--from MODEL"):
        pretrain(
            [write_corpus(tmp_path / "corpus")],
            out=tmp_path / "out",
            recipe="mini-camembert",
            overrides={"freeze": "encoder"},
            quiet=True,
        )


def test_a_tokenizer_that_cuts_and_pads_by_itself_does_so_no_more(encoder: Path) -> None:
    """As sentence-transformers' does: padding would be taken for text."""
    file = encoder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(file))
    assert json.loads(file.read_text())["padding"]
    ids = load_tokenizer(encoder).backend_tokenizer.encode("Nobody on the platform knew.").ids
    assert 4 < len(ids) < 40
    assert ids.count(0) == 0


def test_the_demo_in_english(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_steps, "benchmark", lambda models, *, out, **_: out.mkdir())  # in test_demo.py
    write_task(tmp_path / "data" / "sentiment", "sentiment")
    write_corpus(tmp_path / "data" / "corpus", lines=200)
    out = tmp_path / "out"
    report = demo(
        out=out, data=tmp_path / "data", teacher=encoder, english=True, minutes=0.05, seed=1, quiet=True
    )  # fmt: skip
    assert [model.name for model in report.models] == ["teacher", "student"]
    assert json.loads((out / "teacher" / "report.json").read_text())["command"] == "pretrain"
    assert "Kind staff" in (out / "predictions.md").read_text()
    with pytest.raises(InputError, match="has no masked language model head"):
        demo(out=tmp_path / "b", data=tmp_path / "data", teacher=encoder, minutes=0.05, quiet=True)


def test_rows_that_no_token_has_are_kept(tmp_path: Path) -> None:
    """Tables are padded to round sizes."""
    start = save_tiny(tmp_path, "bert", "mlm", vocab_size=256)
    corpus = write_corpus(tmp_path / "corpus", lines=200)
    pretrain([corpus], out=tmp_path / "out", recipe="mlm-head", init_from=start, overrides=ON_TEXT, quiet=True)
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "out").config.vocab_size == 256


def test_a_projection_that_would_be_lost_is_refused(tmp_path: Path) -> None:
    start = save_tiny(tmp_path, "bert", "mlm", tie_word_embeddings=False)
    corpus = write_corpus(tmp_path / "corpus", lines=50)
    with pytest.raises(InputError, match="projection of its own"):
        pretrain([corpus], out=tmp_path / "out", recipe="mlm-head", init_from=start, overrides=ON_TEXT, quiet=True)
    assert not list(tmp_path.glob("out*"))
