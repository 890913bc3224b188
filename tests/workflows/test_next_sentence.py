"""BERT's two losses: against the stock class, and in a pre-training whose model loads with both heads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForNextSentencePrediction,
    AutoModelForPreTraining,
    AutoTokenizer,
    BertForPreTraining,
)

from affinage.distillation.objective import Objective
from affinage.errors import InputError
from affinage.losses.base import distillation_losses
from affinage.models.next_sentence import with_next_sentence_head
from affinage.recipe import Component
from affinage.runtime.load import load
from affinage.signals import IGNORED, Batch, Signals
from affinage.workflows.distil import distil
from affinage.workflows.dry_run import pretrain_dry_run
from affinage.workflows.pretrain import pretrain
from tiny import SENTENCES, save_tiny, tiny_model, tiny_tokenizer
from tiny_data import ON_TEXT, SHAPE, same_weights

RECIPE: dict[str, Any] = {
    "recipe": "bert",
    "overrides": {**ON_TEXT, **SHAPE, "held_out": "0.3", "training.gradient_accumulation_steps": "1"},
    "quiet": True,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty documents of six lines."""
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    documents = ["\n".join(f"{SENTENCES[(i + j) % 10]} {i}" for j in range(6)) for i in range(20)]
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


def test_the_objective_is_the_loss_of_the_stock_class() -> None:
    model = with_next_sentence_head(tiny_model("bert"))
    assert isinstance(model, BertForPreTraining)
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 100, (6, 20), generator=random)
    real = torch.arange(20) < torch.tensor([20, 17, 9, 20, 12, 5])[:, None]
    types = (torch.arange(20) > 7).long().expand(6, 20) * real
    labels = torch.where(real & (torch.rand(6, 20, generator=random) < 0.3), ids, IGNORED)
    follows = torch.tensor([0, 1, 1, 0, 1, 0])
    objective = Objective(model, [Component(name="mlm"), Component(name="nsp", weight=1.0)]).eval()
    inputs = {"input_ids": ids, "segments": real.long(), "labels": labels, "token_type_ids": types, "follows": follows}
    counts = objective.counts(inputs)
    assert counts.tolist() == [int((labels != IGNORED).sum()), 6]
    ours, _ = objective(**inputs, scales=1 / counts)
    stock = model(
        input_ids=ids, attention_mask=real.long(), token_type_ids=types, labels=labels, next_sentence_label=follows
    )
    assert ours.item() == pytest.approx(stock.loss.item(), rel=1e-5)
    gradient = torch.autograd.grad(ours, list(model.parameters()), allow_unused=True)
    expected = torch.autograd.grad(stock.loss, list(model.parameters()), allow_unused=True)
    for mine, theirs in zip(gradient, expected, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert torch.allclose(mine, theirs, atol=1e-5)


def test_the_loss_is_the_definition_in_numpy() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 2))
    follows = np.array([0, 1, IGNORED, 1])
    shifted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -sum(np.log(shifted[i, label]) for i, label in enumerate(follows) if label != IGNORED)
    batch = Batch(
        input_ids=torch.zeros(4, 3, dtype=torch.long),
        mask=torch.ones(4, 3, dtype=torch.bool),
        follows=torch.from_numpy(follows),
    )
    found = distillation_losses.build("nsp")(Signals(next_sentence=torch.from_numpy(logits)), Signals(), batch)
    assert found.total.item() == pytest.approx(expected, rel=1e-6)
    assert found.count == 3


def test_a_bert_is_trained_saved_and_loaded_by_stock_transformers(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = pretrain([corpus], out=tmp_path / "bert", **RECIPE)
    assert report.training is not None
    assert set(report.training.losses) == {"loss", "mlm", "nsp"}
    assert 0.3 < report.training.held_out["nsp"] < 2
    assert report.training.held_out["loss"] == pytest.approx(
        report.training.held_out["mlm"] + report.training.held_out["nsp"], rel=1e-4
    )
    again = pretrain([corpus], out=tmp_path / "again", **RECIPE)
    assert same_weights(tmp_path / "bert", tmp_path / "again")
    assert again.training is not None

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "bert")
    pair = tokenizer(SENTENCES[0], SENTENCES[1], return_tensors="pt")
    ids, types = pair["input_ids"][0].tolist(), pair["token_type_ids"][0].tolist()
    ends = [i for i, token in enumerate(ids) if token == tokenizer.sep_token_id]
    assert len(ends) == 2 and types == [0] * (ends[0] + 1) + [1] * (len(ids) - ends[0] - 1)
    logits = []
    for head in (AutoModelForPreTraining, AutoModelForNextSentencePrediction, AutoModelForMaskedLM):
        model, info = head.from_pretrained(tmp_path / "bert", output_loading_info=True)
        assert not info["missing_keys"] and not info["mismatched_keys"]
        with torch.inference_mode():
            output = model.eval()(**pair)
        logits.append(output)
    assert torch.allclose(logits[0].seq_relationship_logits, logits[1].logits)
    assert torch.allclose(logits[0].prediction_logits, logits[2].logits, atol=1e-6)
    assert "AutoModelForPreTraining" in (tmp_path / "bert" / "README.md").read_text(encoding="utf-8")
    assert load(tmp_path / "bert").predict("Le petit <mask> du village.")[0]["token_str"]


def test_the_new_head_stands_beside_a_model_to_start_from(corpus: Path, tmp_path: Path) -> None:
    start = save_tiny(tmp_path, "bert", "mlm")
    settings = {
        **RECIPE["overrides"],
        "student.tokenizer": "null",
        "training.max_steps": "1",
        "training.learning_rate": "1e-12",
    }
    pretrain([corpus], out=tmp_path / "out", init_from=start, **{**RECIPE, "overrides": settings})
    model = AutoModelForPreTraining.from_pretrained(tmp_path / "out")
    for name, weight in tiny_model("bert").state_dict().items():
        assert torch.allclose(model.state_dict()[name], weight, atol=1e-6), name
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == len(tiny_tokenizer("bert"))


def test_a_dry_run_trains_on_pairs_too(corpus: Path, tmp_path: Path) -> None:
    found = pretrain_dry_run([corpus], out=tmp_path / "out", **RECIPE)
    assert found.student_parameters > 0 and found.steps == 2
    assert not list(tmp_path.iterdir())


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., None]:
    def check(said: str, run: Any, *given: Any, **asked: Any) -> None:
        with pytest.raises(InputError, match=said):
            run(*given, out=tmp_path / "out", **asked)
        assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()

    return check


def test_what_has_no_pairs_is_refused(refused: Callable[..., None], corpus: Path, tmp_path: Path) -> None:
    def settings(**more: str) -> dict[str, Any]:
        return {**RECIPE, "overrides": {**RECIPE["overrides"], **{k.replace("__", "."): v for k, v in more.items()}}}

    refused(
        "needs a next-sentence head, which the architecture 'roberta' has not; those that have one: bert",
        pretrain,
        [corpus],
        **settings(student__architecture="roberta"),
    )
    refused("this corpus is streamed", pretrain, [corpus], **settings(streaming="true"))
    one = tmp_path / "one.txt"
    one.write_text("\n".join(SENTENCES), encoding="utf-8")
    refused(
        "the (held-out|training) text is of one document|the corpus has no (held-out|training) text",
        pretrain,
        [one],
        **settings(),
    )
    teacher = save_tiny(tmp_path, "bert", "mlm")
    losses = {"losses": "[{name: nsp}]", **ON_TEXT}
    refused("loss 'nsp' is for affinage pretrain", distil, teacher, corpus=[corpus], overrides=losses, quiet=True)
