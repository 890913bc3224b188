"""Models from folders: what cannot be used is refused with one message, at once and before anything is made of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertConfig

from affinage.errors import InputError
from affinage.models.checkpoint import (
    check_fit,
    load_masked_lm,
    load_task_model,
    load_tokenizer,
    max_length,
    read_config,
    refuse_other_head,
    task_of,
)
from affinage.models.layout import layout_of
from tiny import ARCHITECTURES, save_tiny, tiny_model, tiny_tokenizer


def refused(load: Callable[[Path | str], Any], name: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        load(name)
    message = str(caught.value)
    assert str(name) in message and "\n" not in message and "Traceback" not in message
    return message


def span_model(name: Path | str) -> Any:
    return load_task_model(name, "span")


LOADERS = (load_masked_lm, span_model, read_config)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_masked_model_comes_back_in_float32_and_eval_mode(architecture: str, tmp_path: Path) -> None:
    expected = tiny_model(architecture).state_dict()
    folder = save_tiny(tmp_path, architecture)
    model, has_head = load_masked_lm(folder)
    assert has_head and not model.training
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    tiny_model(architecture).half().save_pretrained(folder)
    half, _ = load_masked_lm(folder)
    assert {value.dtype for value in half.state_dict().values() if value.is_floating_point()} == {torch.float32}
    assert half.config.dtype == torch.float32
    check_fit(load_tokenizer(folder), half.config, where=folder)


@pytest.mark.parametrize("head", ["base", "sequence", "span"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_teacher_without_a_vocabulary_head_is_refused(architecture: str, head: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, architecture, head)
    assert "has no masked language model head" in refused(load_masked_lm, folder)
    model, has_head = load_masked_lm(folder, allow_fresh_head=True)
    assert not has_head and model is not None


@pytest.mark.parametrize("kind", ["sequence", "pair", "token", "span"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_task_model_whose_head_would_be_random_is_refused(architecture: str, kind: Any, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, architecture, "mlm")
    message = refused(lambda name: load_task_model(name, kind), folder)
    assert "is not fine-tuned for this" in message and "would start at random" in message
    assert "affinage finetune" in message
    tuned = save_tiny(tmp_path, architecture, kind)
    assert not load_task_model(tuned, kind).training


@pytest.mark.parametrize(
    ("head", "kind"), [("sequence", "token"), ("token", "pair"), ("span", "sequence"), ("token", "span")]
)
def test_a_head_of_another_kind_is_refused(head: str, kind: Any, tmp_path: Path) -> None:
    """Sequence and token heads have the same shapes: without this a classifier would tag tokens."""
    folder = save_tiny(tmp_path, "distilbert", head)
    message = refused(lambda name: load_task_model(name, kind), folder)
    assert "DistilBertFor" in message and "this task needs a …For" in message
    refuse_other_head(save_tiny(tmp_path, "distilbert", "mlm"), kind)  # no task head at all: loading says so


def test_labels_name_the_outputs_and_the_seed_the_head(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "camembert")
    state = torch.random.get_rng_state()
    one, same, other = (load_task_model(folder, "token", labels=("O", "B-X", "I-X"), seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.config.id2label == {0: "O", 1: "B-X", 2: "I-X"} and one.config.label2id["I-X"] == 2
    assert one.classifier.weight.shape[0] == 3
    assert torch.equal(one.classifier.weight, same.classifier.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    assert torch.equal(
        one.roberta.embeddings.word_embeddings.weight, tiny_model().roberta.embeddings.word_embeddings.weight
    )


@pytest.mark.parametrize("architecture", ["camembert", "distilbert"])
def test_a_head_is_kept_for_its_own_labels_in_their_order(architecture: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, architecture, "sequence", id2label={0: "Négatif", 1: "positif"})
    before = load_task_model(folder, "sequence").state_dict()

    def kept(*labels: str) -> set[bool]:
        """Of the encoder's weights whether all are kept, of the head's whether any matrix is."""
        after = load_task_model(folder, "sequence", labels=labels, seed=5)
        base = f"{after.base_model_prefix}."
        assert all(t.equal(before[n]) for n, t in after.state_dict().items() if n.startswith(base))
        return {t.equal(before[n]) for n, t in after.state_dict().items() if not n.startswith(base) and t.dim() == 2}

    assert kept("négatif", "positif") == {True}
    assert kept("positif", "négatif") == kept("chat", "chien") == {False}


def test_another_number_of_labels_makes_another_head(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "bert", "sequence", num_labels=5)
    model = load_task_model(folder, "sequence", labels=("non", "oui"))
    assert model.classifier.weight.shape[0] == 2
    load_task_model(folder, "span", labels=())


@pytest.mark.parametrize("load", [*LOADERS, load_tokenizer])
def test_a_missing_folder_and_a_file_are_refused(load: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in (tmp_path / "missing", tmp_path / "file", "./missing", "~/missing", "a/b/missing"):
        assert "no such folder" in refused(load, name)


@pytest.mark.parametrize("load", [*LOADERS, load_tokenizer])
def test_an_unknown_hub_name_is_refused_quickly(load: Any) -> None:
    for name in ("nobody/nothing", "camembert-that-is-not", "a" * 300, "not a name!"):
        assert "cannot be loaded" in (message := refused(load, name)) or "name too long" in message


@pytest.mark.parametrize("load", LOADERS)
def test_a_folder_without_a_config_is_refused(load: Any, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path)
    (folder / "config.json").unlink()
    assert "holds no config.json" in refused(load, folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"model_type": "nonesuch"}',
        b"{}",
        b'{"model_type": "bert", "hidden_size": "x"}',
    ],
)
def test_a_corrupt_config_is_refused(content: bytes, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "bert")
    (folder / "config.json").write_bytes(content)
    for load in LOADERS:
        assert "cannot be loaded" in refused(load, folder)


@pytest.mark.parametrize("size", [0, 7, 100, 3000])
@pytest.mark.parametrize("load", LOADERS[:2])
def test_truncated_weights_are_refused(load: Any, size: int, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "camembert", "mlm" if load is load_masked_lm else "span")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    assert "cannot be loaded" in refused(load, folder)


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path)
    (folder / "model.safetensors").unlink()
    assert "cannot be loaded" in refused(load_masked_lm, folder)


def test_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "bert", "mlm")
    kept = {k: v for k, v in load_file(folder / "model.safetensors").items() if "layer.3." not in k}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert "layer.3." in refused(load_masked_lm, folder)
    with pytest.raises(InputError, match=r"layer\.3\."):
        load_masked_lm(folder, allow_fresh_head=True)
    with pytest.raises(InputError, match=r"layer\.3\."):
        load_task_model(folder, "sequence", labels=("non", "oui"))


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "bert", "mlm")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    assert "cannot be loaded" in refused(load_masked_lm, folder)
    with pytest.raises(InputError, match=r"its weights are not those its config\.json describes"):
        load_task_model(folder, "sequence", labels=("non", "oui"))


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_corrupt_tokenizer_is_refused(file: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path)
    whole = (folder / file).read_bytes()
    for content in (b"", b"{}", whole[: len(whole) // 2]):
        (folder / file).write_bytes(content)
        if (file, content) != ("tokenizer_config.json", b"{}"):
            assert "cannot be loaded" in refused(load_tokenizer, folder)
    (folder / file).unlink()
    refused(load_tokenizer, folder)


def test_a_tokenizer_without_pad_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("camembert")
    folder = tmp_path / "tokenizer"
    shutil.copytree(save_tiny(tmp_path), folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert "has no pad token" in refused(load_tokenizer, folder)
    assert tokenizer.pad_token_id == 1


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    size = len(tiny_tokenizer())
    check_fit(tiny_tokenizer(), read_config(save_tiny(tmp_path, vocab_size=size)), where="m")
    check_fit(tiny_tokenizer(), read_config(save_tiny(tmp_path, vocab_size=size + 8)), where="m")
    with pytest.raises(
        InputError, match=f"model 'm': its tokenizer makes ids up to {size - 1}, .* have {size - 1} rows"
    ):
        check_fit(tiny_tokenizer(), read_config(save_tiny(tmp_path, vocab_size=size - 1)), where="m")


def test_an_unknown_architecture_is_named() -> None:
    config = BertConfig()
    config.model_type = "mpnet"
    with pytest.raises(InputError, match="architecture 'mpnet' is not supported yet; known: albert, bert"):
        layout_of(config)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_longest_row_is_what_the_model_takes(architecture: str) -> None:
    model = tiny_model(architecture)
    longest = max_length(model.config)
    assert longest == 64
    with torch.no_grad():
        model(torch.full((1, longest), 7))
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, longest + 1), 7))


def test_the_task_noted_in_a_config(tmp_path: Path) -> None:
    model = tiny_model("camembert", "sequence")
    assert task_of(model.config) is None
    model.config.affinage_task = "sentiment"
    model.save_pretrained(tmp_path / "m")
    assert task_of(read_config(tmp_path / "m")) == "sentiment"
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")


@pytest.mark.parametrize("load", [read_config, load_masked_lm, load_tokenizer])
def test_code_in_a_folder_is_neither_run_nor_asked_about(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers, left to itself, asks whoever sits at a terminal."""
    folder, marker = save_tiny(tmp_path), tmp_path / "ran"
    (folder / "configuration_zork.py").write_text(
        f"from transformers import PretrainedConfig\nopen({str(marker)!r}, 'w').close()\n"
        "class ZorkConfig(PretrainedConfig):\n    model_type = 'zork'\n"
    )
    said = {"model_type": "zork", "auto_map": {"AutoConfig": "configuration_zork.ZorkConfig"}}
    (folder / "config.json").write_text(json.dumps(said))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    refused(load, folder)
    assert not marker.exists()


def test_weights_that_the_config_leaves_out_are_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    assert "describes fewer layers" in refused(load_masked_lm, folder)
