"""`inspect` on model folders."""

import json
from pathlib import Path
from typing import Any

import pytest

from affinage.errors import InputError
from affinage.workflows.inspect import inspect
from tiny import ARCHITECTURES, save_tiny, tiny_model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("head", ["mlm", "sequence", "token", "span"])
def test_counts_are_the_models(architecture: str, head: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, architecture, head)
    found = inspect(folder, length=64)
    assert found.parameters == sum(p.numel() for p in tiny_model(architecture, head).parameters())
    assert found.parameters == found.embeddings + found.encoder + found.pooler + found.head
    assert (found.layers, found.hidden_size, found.heads, found.intermediate_size) == (4, 16, 2, 32)
    assert found.size_bytes == (folder / "model.safetensors").stat().st_size
    assert found.stored_as == "fp32"
    assert found.max_length == 64


def test_without_weights_the_size_is_four_bytes_a_parameter(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path)
    (folder / "model.safetensors").unlink()
    found = inspect(folder, length=8)
    assert found.size_bytes == 4 * found.parameters
    assert found.stored_as is None


@pytest.mark.parametrize("length", [0, 65])
def test_a_length_the_model_does_not_take(tmp_path: Path, length: int) -> None:
    with pytest.raises(InputError, match=rf"length {length}: this model takes 1 to 64 tokens"):
        inspect(save_tiny(tmp_path), length=length)


def test_an_architecture_that_is_no_class_is_not_called(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["pipeline"]}))
    assert inspect(folder, length=8).architecture == "CamembertModel"


@pytest.mark.parametrize("name", ["BertPreTrainedModel", "PreTrainedModel", "T5ForConditionalGeneration", "BertModel"])
def test_a_class_that_is_not_the_config_s_is_not_made(tmp_path: Path, name: str) -> None:
    folder = save_tiny(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": [name]}))
    assert inspect(folder, length=8).architecture == "CamembertModel"


@pytest.mark.parametrize("wrong", [{"num_attention_heads": 3}, {"pad_token_id": None}])
def test_a_config_that_describes_no_model(tmp_path: Path, wrong: dict[str, Any]) -> None:
    folder = save_tiny(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | wrong))
    with pytest.raises(InputError, match=r"config\.json (describes no model|has no pad_token_id)"):
        inspect(folder, length=8)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match=r"architecture 'gpt2' is not supported yet; known: albert, bert, camembert"):
        inspect(tmp_path)
