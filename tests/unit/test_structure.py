"""What is not stock in a model is found, stored beside its weights, and built again to the last bit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

import affinage
from affinage.errors import InputError
from affinage.evaluation.footprint import footprint, model_entry, tensor_bytes
from affinage.models.checkpoint import load_masked_lm, load_task_model, weights_fingerprint
from affinage.models.layout import layout_of
from affinage.models.modules.base import module_kinds
from affinage.models.replacing import is_tied, replace_embedding_, replace_module_, word_embedding_path
from affinage.models.storage import COMPRESSED, STOCK, STRUCTURE, save_model
from affinage.models.structure import structure_of
from compressed_kinds import Halves, TwoMaps, halves
from tiny import FAMILIES, save_tiny, tiny_model, tiny_tokenizer

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module_kinds, "test-halves", Halves)
    monkeypatch.setitem(module_kinds, "test-two-maps", TwoMaps)


def uneven(head: str = "mlm") -> PreTrainedModel:
    """A BERT with one head in layer 1, five neurons in layer 2, layer 3 that is layer 0, two maps inside one place,
    one of them of another form again, and a table of another form.
    """
    model = tiny_model("bert", head)
    layers = model.get_submodule("bert.encoder.layer")
    assert isinstance(layers, nn.ModuleList)
    attention = layers[1].get_submodule("attention.self")
    for name in ("query", "key", "value"):
        replace_module_(model, f"bert.encoder.layer.1.attention.self.{name}", nn.Linear(16, 8))
    replace_module_(model, "bert.encoder.layer.1.attention.output.dense", nn.Linear(8, 16))
    attention.num_attention_heads, attention.all_head_size = 1, 8  # type: ignore[assignment]
    replace_module_(model, "bert.encoder.layer.2.intermediate.dense", nn.Linear(16, 5))
    replace_module_(model, "bert.encoder.layer.2.output.dense", nn.Linear(5, 16))
    replace_module_(model, "bert.encoder.layer.0.attention.self.query", TwoMaps(16, 4, 16))
    replace_module_(model, "bert.encoder.layer.0.attention.self.query.second", TwoMaps(4, 3, 16))
    layers[3] = layers[0]
    table = model.get_submodule(word_embedding_path(model))
    assert isinstance(table, nn.Embedding)
    replace_embedding_(model, halves(table))
    return model


@pytest.mark.parametrize("architecture", [*FAMILIES, "mobilebert"])
@pytest.mark.parametrize("head", ["mlm", "token"])
def test_stock_models_have_no_structure(architecture: str, head: str) -> None:
    assert structure_of(tiny_model(architecture, head)).empty


def test_the_structure_says_what_is_not_stock() -> None:
    found = structure_of(uneven())
    layer = "bert.encoder.layer"
    assert {path: part.kind for path, part in found.parts.items()} == {
        "bert.embeddings.word_embeddings": "test-halves",
        f"{layer}.0.attention.self.query": "test-two-maps",
        f"{layer}.0.attention.self.query.second": "test-two-maps",
        **{f"{layer}.1.attention.self.{name}": "linear" for name in ("query", "key", "value")},
        f"{layer}.1.attention.output.dense": "linear",
        f"{layer}.2.intermediate.dense": "linear",
        f"{layer}.2.output.dense": "linear",
    }
    assert found.attributes == {
        f"{layer}.1.attention.self.num_attention_heads": 1,
        f"{layer}.1.attention.self.all_head_size": 8,
    }
    assert found.shared == {f"{layer}.3": f"{layer}.0"}


def test_it_is_stored_once_and_loads_to_the_last_bit(tmp_path: Path) -> None:
    model = uneven()
    save_model(model, tmp_path / "one")
    tiny_tokenizer("bert").save_pretrained(tmp_path / "one")
    assert not (tmp_path / "one" / STOCK).exists()
    loaded = affinage.load_model(tmp_path / "one")
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert not loaded.training and is_tied(loaded)
    save_model(loaded, tmp_path / "two")
    for name in (COMPRESSED, STRUCTURE, "config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    stored = tmp_path / "one" / COMPRESSED
    header = 8 + int.from_bytes(stored.read_bytes()[:8], "little")
    counted = footprint(loaded)
    assert stored.stat().st_size - header == tensor_bytes(loaded) == counted.size_bytes == 4 * counted.parameters
    assert counted.parameters == sum(p.numel() for p in model.parameters())
    assert model_entry(model, name="m", path="m").size_bytes == counted.size_bytes
    # 6 linear maps a layer as multiply-adds, layer 0 twice, and scores of the width of the queries
    maps = 2 * (16 * 4 + 4 * 3 + 3 * 16 + 3 * 256 + 2 * 512) + (4 * 128 + 2 * 512) + (4 * 256 + 2 * 80)
    assert counted.flops == 2 * 128 * maps + 4 * 128**2 * (16 + 8 + 16 + 16)


def test_stock_loaders_refuse_it_and_other_heads_take_its_encoder(tmp_path: Path) -> None:
    model = uneven()
    save_model(model, tmp_path)
    with pytest.raises(OSError, match="no file named"):
        AutoModelForMaskedLM.from_pretrained(tmp_path)
    task = load_task_model(tmp_path, "sequence", labels=("a", "b", "c"), seed=3)
    assert task(IDS).logits.shape == (1, 3) and task.config.id2label == {0: "a", 1: "b", 2: "c"}
    again = load_task_model(tmp_path, "sequence", labels=("a", "b", "c"), seed=3)
    assert torch.equal(task(IDS).logits, again(IDS).logits)
    base = layout_of(model.config).base
    pairs = zip(*(dict(m.get_submodule(base).named_parameters()).items() for m in (model, task)), strict=False)
    assert all(torch.equal(ours, theirs) for (ours_name, ours), (name, theirs) in pairs if name == ours_name)
    with pytest.raises(InputError, match="not fine-tuned for this"):
        load_task_model(tmp_path, "sequence")
    save_model(task, tmp_path / "task")
    assert type(affinage.load_model(tmp_path / "task")).__name__ == "BertForSequenceClassification"
    other = load_task_model(tmp_path / "task", "sequence", labels=("a", "b"))
    assert other(IDS).logits.shape == (1, 2)
    with pytest.raises(InputError, match="no masked language model head"):
        load_masked_lm(tmp_path / "task")


def test_weights_that_do_not_belong_to_the_structure_are_refused(tmp_path: Path) -> None:
    save_model(uneven(), tmp_path)
    before = weights_fingerprint(tmp_path)
    stored = json.loads((tmp_path / STRUCTURE).read_text())

    def refused(what: str) -> None:
        (tmp_path / STRUCTURE).write_text(json.dumps(stored))
        with pytest.raises(InputError, match=what):
            affinage.load_model(tmp_path)

    stored["parts"]["bert.encoder.layer.2.output.dense"]["settings"]["in_features"] = 6
    refused(r"layer\.2\.output\.dense\.weight of another shape")
    assert weights_fingerprint(tmp_path) != before
    stored["parts"]["bert.encoder.layer.9.output.dense"] = stored["parts"].pop("bert.encoder.layer.2.output.dense")
    refused(r"names 'bert\.encoder\.layer\.9\.output\.dense'")
    stored["parts"]["bert.encoder.layer.2.output.dense"] = {"kind": "magic", "settings": {}}
    del stored["parts"]["bert.encoder.layer.9.output.dense"]
    refused("kind 'magic' is not known")
    stored["parts"] = {"bert": 3}
    refused("its structure.json cannot be used")
    stored["parts"], stored["shared"] = {}, {}
    refused(r"its weights are not those|of another shape")


def test_a_stock_model_is_saved_as_transformers_saves_it(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "camembert")
    save_model(load_masked_lm(folder)[0], tmp_path / "again")
    assert (tmp_path / "again" / STOCK).read_bytes() == (folder / STOCK).read_bytes()
    shutil.rmtree(tmp_path / "again")


def test_a_class_that_training_made_of_a_stock_one_is_stock() -> None:
    model = tiny_model("bert")
    layer = model.get_submodule("bert.encoder.layer.0")
    layer.__class__ = type("FSDPBertLayer", (type(layer),), {})
    assert structure_of(model).empty


def test_what_no_kind_is_registered_for_is_a_programmers_mistake() -> None:
    model = tiny_model("bert")
    replace_module_(model, "bert.encoder.layer.0.output.dense", nn.Bilinear(2, 3, 4))
    with pytest.raises(ValueError, match="is a Bilinear"):
        structure_of(model)
