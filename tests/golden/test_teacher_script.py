"""benchmarks/teacher/train.py: its model is the stock one, and what it skips is what it says."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForMaskedLM

from tiny import SENTENCES, save_tiny, tiny_model, tiny_tokenizer

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "teacher" / "train.py"
if not SCRIPT.is_file():
    pytest.skip("the benchmarks are not in this distribution", allow_module_level=True)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_teacher", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def guesses() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 140, (3, 12), generator=generator)
    chosen = torch.stack([torch.randperm(10, generator=generator)[:3].sort()[0] + 1 for _ in range(3)])
    return ids, chosen, ids.gather(1, chosen)


def test_the_loss_is_the_stock_models(script: ModuleType) -> None:
    stock = tiny_model("camembert", "mlm")
    ids, chosen, labels = guesses()
    ours = script.Encoder(stock)(ids, chosen, labels)
    logits = stock(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    at = logits[torch.arange(3)[:, None], chosen].flatten(0, 1)
    torch.testing.assert_close(ours, cross_entropy(at, labels.flatten(), reduction="sum"), rtol=1e-5, atol=1e-4)


def test_keeping_every_token_skips_nothing_and_gradients_reach_all_layers(script: ModuleType) -> None:
    stock = tiny_model("camembert", "mlm")
    model = script.Encoder(stock)
    ids, chosen, labels = guesses()
    middle = model.layers - 2
    everything = torch.from_numpy(script.kept(chosen.numpy(), 12, 1.0, middle, np.random.default_rng(0)))
    exact = model(ids, chosen, labels)
    torch.testing.assert_close(model(ids, chosen, labels, everything), exact)
    half = torch.from_numpy(script.kept(chosen.numpy(), 12, 0.5, middle, np.random.default_rng(0)))
    skipping = model(ids, chosen, labels, half)
    assert middle > 0
    assert skipping.item() != exact.item()
    skipping.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_what_is_kept(script: ModuleType, share: float) -> None:
    chosen = np.array([[2, 5], [1, 10]])
    kept = script.kept(chosen, 12, share, 3, np.random.default_rng(1))
    assert kept.shape == (3, 2, max(4, round(12 * share)))
    for layer in kept:
        for row, guessed in zip(layer, chosen, strict=True):
            assert len(set(row)) == len(row)
            assert {0, 11, *guessed} <= set(row)


def test_masks(script: ModuleType) -> None:
    rows = np.tile(np.arange(5, 55), (200, 1))
    masked, chosen, labels = script.mask(rows, 0.2, 4, 100, np.random.default_rng(0))
    assert chosen.shape == labels.shape == (200, script.masked_count(50, 0.2)) == (200, 10)
    assert chosen.min() >= 1
    assert chosen.max() <= 48
    assert (np.take_along_axis(rows, chosen, 1) == labels).all()
    untouched = np.ones_like(rows, dtype=bool)
    np.put_along_axis(untouched, chosen, False, axis=1)
    assert (masked == rows)[untouched].all()
    new = np.take_along_axis(masked, chosen, 1)
    assert 0.77 < (new == 4).mean() < 0.83
    assert 0.08 < (new == labels).mean() < 0.14


def prepared(folder: Path) -> Path:
    tokenizer = tiny_tokenizer("camembert")
    save_tiny(folder, "camembert", "mlm").rename(folder / "model")
    texts = [tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids for text in SENTENCES * 4]
    starts = np.cumsum([0, *map(len, texts)])
    ids = np.concatenate(texts).astype(np.uint16)
    np.savez(folder / "tokens.npz", train_ids=ids, train_starts=starts, held_out_ids=ids, held_out_starts=starts)
    return folder


def test_a_stopped_run_goes_on_to_the_same_model(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prepared").mkdir()
    folder = prepared(tmp_path / "prepared")

    def run(out: str, tokens: int, **more: Any) -> None:
        line = ["train.py", str(folder), str(tmp_path / out), "--tokens", str(tokens), "--workers", "1"]
        line += ["--batch", "300", "--micro", "100", "--max-length", "24"]
        for key, value in more.items():
            line += [f"--{key.replace('_', '-')}", str(value)]
        monkeypatch.setattr(sys, "argv", line)
        script.main()

    run("whole", 3_000)
    run("parts", 3_000, minutes=1e-9)  # stops after its first step
    assert not (tmp_path / "parts" / "model").exists()
    run("parts", 3_000)
    last = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()][-1]
    assert last["tokens"] >= 3_000
    whole, parts = (
        AutoModelForMaskedLM.from_pretrained(tmp_path / out / "model", dtype=torch.float32).state_dict()
        for out in ("whole", "parts")
    )
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-3, atol=1e-4)
    start = AutoModelForMaskedLM.from_pretrained(folder / "model").state_dict()
    assert any(not torch.equal(start[name], whole[name]) for name in whole)
