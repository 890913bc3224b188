"""What the weights that ship promise: stock folders in fp16, small, trained, with a report and a card."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from transformers import AutoModelForMaskedLM, AutoTokenizer

from affinage import load
from affinage.errors import InputError
from affinage.models.checkpoint import load_masked_lm, read_config, weights_fingerprint
from affinage.models.shipped import located, shipped_models
from affinage.report.report import Report
from affinage.workflows.inspect import inspect

MODELS = shipped_models()
MOST_BYTES = 60_000_000
"""of all weights together: what was ever committed stays below 100 MB"""


def test_the_teacher_ships_and_weights_stay_small() -> None:
    assert "shipped:teacher" in MODELS
    weights = [path for name in MODELS for path in Path(located(name)).glob("*.safetensors")]
    assert sum(path.stat().st_size for path in weights) < MOST_BYTES


@pytest.mark.parametrize("name", MODELS)
def test_they_are_stock_folders_in_fp16(name: str) -> None:
    folder = Path(located(name))
    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == model.config.vocab_size == 16_000
    assert type(tokenizer).__name__ != "CamembertTokenizer"
    assert not [path for path in folder.rglob("*") if path.suffix in {".bin", ".pt", ".pkl", ".py"}]
    with safe_open(next(folder.glob("*.safetensors")), "pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118
    ours, has_head = load_masked_lm(name)
    assert has_head
    assert ours.dtype == torch.float32
    assert inspect(name).parameters == sum(p.numel() for p in model.parameters())
    assert weights_fingerprint(name) == weights_fingerprint(folder)


@pytest.mark.parametrize("name", MODELS)
def test_they_know_french(name: str) -> None:
    predictor = load(name)
    said = predictor.predict(
        ["Paris est la capitale de la <mask>.", "Elle a ouvert la <mask> et elle est entrée.", "Il ne <mask> pas."],
        top_k=20,
    )
    found = [{answer["token_str"].strip() for answer in one["top"]} for one in said]
    assert "France" in found[0]
    assert "porte" in found[1]
    verbs = {"est", "sait", "peut", "faut", "veut", "dit", "voit", "fait", "disait", "savait", "pouvait", "connaissait"}
    assert len(verbs & found[2]) >= 3


@pytest.mark.parametrize("name", MODELS)
def test_the_card_and_the_report_say_what_was_done(name: str) -> None:
    folder = Path(located(name))
    report = Report.from_json((folder / "report.json").read_text(encoding="utf-8"))
    assert report.models[0].layers == read_config(name).num_hidden_layers
    assert report.training is not None
    assert report.training.tokens >= (30_000_000 if name == "shipped:teacher" else 0)
    assert report.training.held_out["pseudo_perplexity"] < 60
    assert report.provenance.hardware.cpu
    card = (folder / "README.md").read_text(encoding="utf-8")
    _, matter, body = card.split("---\n", 2)
    front = yaml.safe_load(matter)
    assert front["language"] == "fr"
    assert front["license"] == "apache-2.0"
    assert "Corpus" in body
    assert f"{report.training.tokens:,}" in body
    assert "pseudo_perplexity" in body
    assert "dtype=torch.float32" in body


def test_a_misspelt_name_is_explained() -> None:
    with pytest.raises(InputError, match="Did you mean 'shipped:teacher'"):
        located("shipped:techer")
    assert located("camembert-base") == "camembert-base"


def test_without_their_package_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("affinage.models.shipped.find_spec", lambda name: None)
    assert shipped_models() == []
    with pytest.raises(InputError, match="pip install affinage-models"):
        located("shipped:teacher")
    assert located("somewhere/else") == "somewhere/else"
