"""Distillation into other shapes and of more families, from the recipe to a folder that loads."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM

from affinage.data.encoding import Row
from affinage.errors import InputError
from affinage.models.checkpoint import Kind, load_task_model, load_tokenizer
from affinage.runtime.engine import TorchEngine
from affinage.workflows.distil import distil
from affinage.workflows.finetune import finetune
from affinage.workflows.predict import predict
from tiny import SENTENCES, save_tiny
from tiny_data import ON_TEXT, STEPS

NARROW = {
    **ON_TEXT,
    "student.hidden_size": "8",
    "student.intermediate_size": "24",
    "student.init": "importance",
    "losses": "[{name: soft_kl}, {name: hidden_mse}]",
}
Tasks = dict[str, Path]
FAMILIES = ("electra", "flaubert", "deberta-v2", "modernbert", "eurobert")


def test_a_narrower_student_learns_goes_on_and_loads(tmp_path: Path, corpus: Path) -> None:
    teacher, out = save_tiny(tmp_path), tmp_path / "out"
    report = distil(teacher, corpus=[corpus], out=out, overrides=NARROW, quiet=True)
    assert [model.hidden_size for model in report.models] == [8, 16]
    model, info = AutoModelForMaskedLM.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert report.models[0].parameters == sum(p.numel() for p in model.parameters())
    assert json.loads((out / "config.json").read_text())["affinage_layers"] == [0, 3]
    again = distil(teacher, corpus=[corpus], out=tmp_path / "on", overrides=NARROW, init_from=out, quiet=True)
    assert again.models[0].hidden_size == 8
    random = {**NARROW, "student.init": "random", "student.num_attention_heads": "4"}
    distil(teacher, corpus=[corpus], out=tmp_path / "random", overrides=random, quiet=True)
    assert "affinage_layers" not in json.loads((tmp_path / "random" / "config.json").read_text())


def test_unequal_widths_are_refused_before_training_where_a_loss_needs_them_equal(tmp_path: Path, corpus: Path) -> None:
    narrow = {key: value for key, value in NARROW.items() if key != "losses"}
    with pytest.raises(InputError, match=r"loss 'cosine_distance': the student's width is 8, the teacher's 16"):
        distil(save_tiny(tmp_path), corpus=[corpus], out=tmp_path / "out", overrides=narrow, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["camembert-mlm"]


@pytest.mark.parametrize("family", FAMILIES)
def test_distil_more_families(family: str, tmp_path: Path, corpus: Path) -> None:
    out = tmp_path / "out"
    config = {"pre_norm": True} if family == "flaubert" else {}
    report = distil(save_tiny(tmp_path, family, **config), corpus=[corpus], out=out, overrides=ON_TEXT, quiet=True)
    assert report.models[0].layers == 2 and report.training is not None and report.training.steps == 2
    info = AutoModelForMaskedLM.from_pretrained(out, output_loading_info=True)[1]
    assert not info["missing_keys"] and not info["unexpected_keys"]


def row_of(ids: list[int]) -> Row:
    nowhere = np.zeros(len(ids), dtype=np.int64)
    return Row(0, np.array(ids), nowhere, np.zeros((len(ids), 2), dtype=np.int64), nowhere)


@pytest.mark.parametrize("kind", ["sequence", "token", "span"])
@pytest.mark.parametrize("family", [*FAMILIES, "albert"])
def test_task_models_of_more_families_answer(family: str, kind: Kind, tmp_path: Path) -> None:
    if (family, kind) == ("eurobert", "span"):
        pytest.skip("transformers has no question answering head for EuroBERT")
    config = {"pre_norm": True} if family == "flaubert" else {}
    folder = save_tiny(tmp_path, family, kind, **config)
    model, tokenizer = load_task_model(folder, kind), load_tokenizer(folder)
    engine = TorchEngine(model, pad_id=tokenizer.pad_token_id, mask_id=tokenizer.mask_token_id)
    rows = [row_of(tokenizer(text).input_ids) for text in SENTENCES[:2]]
    found = dict(engine.logits(rows, batch_size=2))
    assert sorted(found) == [0, 1] and len(found[0]) == (2 if kind == "span" else 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_students_of_more_families_are_fine_tuned_and_predict(family: str, tmp_path: Path, labelled: Tasks) -> None:
    config = {"pre_norm": True} if family == "flaubert" else {}
    student, out = save_tiny(tmp_path, family, **config), tmp_path / "out"
    report = finetune(student, task="sentiment", data=labelled["sentiment"], out=out, overrides=STEPS, quiet=True)
    assert {score.n for score in report.scores} == {8}
    assert predict(out, ["Un film magnifique."])[0]["label"] in ("negative", "positive", "0", "1")
