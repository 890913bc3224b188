"""Weights that are a pickle are never read; the message says what to do."""

from pathlib import Path

import pytest
from transformers import AutoModelForMaskedLM, BertConfig

import affinage.models.checkpoint as checkpoint
from affinage.errors import InputError
from affinage.models.checkpoint import load_masked_lm


def test_a_folder_of_pickled_weights_is_refused_with_a_cure(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(
        InputError, match=r"a pickle, which can run code; .* save_pretrained, which writes safetensors$"
    ):
        load_masked_lm(tmp_path)


def test_so_is_a_name_of_the_hub_that_has_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_pretrained(name: str, **settings: object) -> None:
        assert settings["use_safetensors"] is True
        raise OSError(  # as transformers 5 has it
            f"{name} does not appear to have a file named model.safetensors or model.safetensors.index.json and thus "
            "cannot be loaded with `safetensors`. Please do not set `use_safetensors=True`."
        )

    monkeypatch.setattr(checkpoint, "read_config", lambda name: BertConfig())
    monkeypatch.setattr(AutoModelForMaskedLM, "from_pretrained", from_pretrained)
    with pytest.raises(InputError, match=r"^model 'flaubert/old': .* a pickle, .*; then give the folder") as found:
        load_masked_lm("flaubert/old")
    assert "do not set" not in str(found.value)
