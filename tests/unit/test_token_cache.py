"""Where tokenised corpora are kept: one folder for one text, vocabulary and share held out."""

from pathlib import Path

import pytest

from affinage.data.corpus import fingerprints
from affinage.data.token_cache import VARIABLE, cache_root, token_folder
from tiny import tiny_tokenizer


def folder_of(*files: Path, architecture: str = "camembert", held_out: float = 0.1) -> Path:
    found = token_folder(files, fingerprints(files), tiny_tokenizer(architecture), held_out=held_out)
    assert found is not None
    return found


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    file = tmp_path / "text.txt"
    file.write_text("Un fromage.\n", encoding="utf-8")
    return file


def test_the_same_text_under_another_name_has_the_same_folder(text: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.txt"
    copy.write_bytes(text.read_bytes())
    assert folder_of(text) == folder_of(copy) == folder_of(text)
    assert folder_of(text).parent == tmp_path / "cache" / "tokens"


def test_whatever_the_tokens_depend_on_gives_another_folder(text: Path, tmp_path: Path) -> None:
    other, table = tmp_path / "other.txt", tmp_path / "text.jsonl"
    other.write_text("Un autre.\n", encoding="utf-8")
    table.write_bytes(text.read_bytes())
    folders = [
        folder_of(text),
        folder_of(other),
        folder_of(table),  # the same bytes, read in another way
        folder_of(text, text),
        folder_of(text, other),
        folder_of(other, text),
        folder_of(text, architecture="bert"),
        folder_of(text, held_out=0.2),
    ]
    assert len(set(folders)) == len(folders)


def test_what_may_change_under_its_name_is_not_shared(text: Path) -> None:
    files = [text, "https://example.org/text.txt"]
    assert token_folder(files, fingerprints(files), tiny_tokenizer("camembert"), held_out=0.1) is None


def test_without_a_place_to_write_nothing_is_shared(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(text / "no folder"))
    assert token_folder([text], fingerprints([text]), tiny_tokenizer("camembert"), held_out=0.1) is None


def test_the_place_is_the_users_cache_unless_another_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "here")
    assert cache_root() == Path("here")
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "affinage"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "affinage"
