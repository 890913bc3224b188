"""Size and precision of stored weights, read without loading them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from affinage.evaluation.footprint import model_entry
from affinage.evaluation.weight_files import stored_as, stored_bytes
from tiny import save_tiny, tiny_model


def write(file: Path, *kinds: torch.dtype) -> None:
    save_file({f"t{i}": torch.ones(3, dtype=kind) for i, kind in enumerate(kinds)}, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ((torch.float32, torch.float32), "fp32"),
        ((torch.float16,), "fp16"),
        ((torch.bfloat16,), "bf16"),
        ((torch.float32, torch.float16), "fp16 and fp32"),
        ((torch.float16, torch.int64), "fp16"),  # position ids
        ((torch.int8, torch.float32), "fp32 and int8"),
        ((torch.int64,), None),
    ],
)
def test_the_precision_is_what_the_header_says(
    tmp_path: Path, kinds: tuple[torch.dtype, ...], said: str | None
) -> None:
    write(tmp_path / "model.safetensors", *kinds)
    assert stored_as(tmp_path) == said


def test_all_files_of_a_folder_count(tmp_path: Path) -> None:
    assert (stored_bytes(tmp_path), stored_as(tmp_path)) == (0, None)
    write(tmp_path / "a.safetensors", torch.float16)
    write(tmp_path / "b.safetensors", torch.float32)
    assert stored_bytes(tmp_path) == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert stored_as(tmp_path) == "fp16 and fp32"
    assert (stored_bytes(tmp_path / "a.safetensors"), stored_bytes("owner/name"), stored_bytes(None)) == (0, 0, 0)


@pytest.mark.parametrize(
    "data", [b"", b"weights", b"\xff" * 64, b"\2" + b"\0" * 7 + b"[]", b"\7" + b"\0" * 7 + b'{"a":1}']
)
def test_what_is_no_safetensors_has_no_precision(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    assert (stored_bytes(tmp_path), stored_as(tmp_path)) == (len(data), None)


def test_an_entry_says_how_its_weights_are_or_will_be_stored(tmp_path: Path) -> None:
    model = tiny_model()
    made = model_entry(model, name="x", path="x")
    assert (made.size_bytes, made.stored_as) == (4 * made.parameters, "fp32")
    half = model_entry(model.to(torch.float16), name="x", path="x")
    assert (half.size_bytes, half.stored_as) == (2 * made.parameters, "fp16")
    folder = save_tiny(tmp_path)
    read = model_entry(model, name="x", path="x", folder=folder)
    assert (read.size_bytes, read.stored_as) == (stored_bytes(folder), "fp32")
    hub = model_entry(model, name="x", path="x", folder="owner/name")
    assert (hub.size_bytes, hub.stored_as) == (2 * made.parameters, None)
