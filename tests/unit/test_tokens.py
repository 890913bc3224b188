"""The tokenised corpus on disk: taken up where it is whole, made anew where it is not finished, named if damaged."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from affinage.data.tokens import TokenStore
from affinage.errors import InputError
from tiny import SENTENCES, tiny_tokenizer


def build(folder: Path) -> TokenStore:
    return TokenStore.build(SENTENCES, tiny_tokenizer(), folder)


def test_the_note_holds_what_the_files_are(tmp_path: Path) -> None:
    store = build(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "done.json"}
    assert files.keys() == {"ids.bin", "starts.npy"}
    sums = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    assert json.loads((tmp_path / "done.json").read_text()) == {"texts": len(store), "files": sums}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("ids.bin", flip, "ids.bin' is not what was written (its sha256 differs)"),
        ("ids.bin", lambda path: path.write_bytes(b""), "ids.bin' has 0 bytes"),
        ("starts.npy", Path.unlink, "starts.npy' is missing"),
        ("done.json", lambda path: path.write_text("{"), "cannot be read"),
    ],
)
def test_what_is_damaged_is_named_and_what_to_do_is_said(
    name: str, harm: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    build(tmp_path)
    harm(tmp_path / name)
    with pytest.raises(InputError) as caught:
        build(tmp_path)
    assert said in str(caught.value)
    assert f"; delete the folder '{tmp_path}' and run the same command again" in str(caught.value)


def test_what_was_not_finished_is_made_anew(tmp_path: Path) -> None:
    """Also where a kill left the note half written."""
    expected = np.array(build(tmp_path / "whole").ids)
    build(tmp_path / "cut")
    (tmp_path / "cut" / "done.json").rename(tmp_path / "cut" / "done.tmp")
    (tmp_path / "cut" / "ids.bin").write_bytes(b"half")
    for _ in range(2):
        assert (build(tmp_path / "cut").ids == expected).all()
