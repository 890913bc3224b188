"""Reports: round trip, provenance, tables and the model card made from them."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from affinage import __version__
from affinage.errors import InputError
from affinage.report import provenance as module
from affinage.report.card import model_card
from affinage.report.provenance import provenance
from affinage.report.report import ModelEntry, Provenance, Report, Score, TrainingRun


def a_report(**changed: Any) -> Report:
    parts: dict[str, Any] = {
        "command": "finetune",
        "models": (
            ModelEntry(
                name="s", path="runs/sentiment", parameters=1_234_567, layers=3, size_bytes=4_938_268, stored_as="fp32"
            ),
        ),
        "scores": (
            Score(
                model="s", task="sentiment", metric="accuracy", value=0.8125, low=0.79, high=0.84, n=5413,
                seeds=(0,), baseline=0.5, split="test",
            ),
        ),
        "training": TrainingRun(steps=9, tokens=2_000_000, seconds=90.0, losses={"loss": 0.25}, held_out={"mlm": 3.5}),
        "provenance": provenance(
            command="affinage finetune …", seed=0, recipe_sha256="ab" * 32, data={"a.jsonl": "cd" * 32}, seconds=91.26
        ),
    }  # fmt: skip
    return Report(**parts | changed)


def test_json_round_trip() -> None:
    report = a_report()
    assert Report.from_json(report.to_json()) == report


def test_reports_of_before_the_precision_was_noted_are_read() -> None:
    (line,) = [line for line in a_report().to_json().splitlines() if "stored_as" in line]
    (entry,) = Report.from_json(a_report().to_json().replace(f"{line}\n", "")).models
    assert entry.stored() == ("4.9", "unknown")


fractions = st.floats(0, 1)


@given(value=fractions, low=st.none() | fractions, n=st.integers(1, 10**9), name=st.text(max_size=20))
@settings(max_examples=50, deadline=None)
def test_any_score_survives_the_round_trip(value: float, low: float | None, n: int, name: str) -> None:
    score = Score(model=name, task="nli", metric="accuracy", value=value, low=low, high=low, n=n)
    report = a_report(scores=(score,))
    assert Report.from_json(report.to_json()) == report


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"command": "x", "speed": 3}', "not a report"),
        ("[]", "not a report"),
        ("", "not a report"),
    ],
)
def test_what_is_no_report_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Report.from_json(text)


def test_unknown_keys_and_versions_are_refused() -> None:
    text = a_report().to_json()
    with pytest.raises(InputError, match=r"scores\.0\.accuracy: Extra inputs"):
        Report.from_json(text.replace('"metric"', '"accuracy": 1, "metric"', 1))
    with pytest.raises(InputError, match="schema_version"):
        Report.from_json(text.replace('"schema_version":1', '"schema_version":2').replace(": 1,", ": 2,", 1))


def test_markdown_shows_every_figure_with_its_conditions() -> None:
    text = a_report().to_markdown()
    assert "| s | 3 | 1,234,567 | 4.9 | fp32 |" in text
    assert "| s | sentiment | test | accuracy | 81.2 | 79.0 to 84.0 | 50.0 | 5,413 | 0 |" in text
    assert "| training loss | 0.2500 |" in text
    assert "| held-out mlm | 3.5000 |" in text
    assert "`affinage finetune …`" in text


def test_a_name_cannot_break_a_table() -> None:
    entry = ModelEntry(name="a|b\nc", path="a", parameters=1, layers=1, size_bytes=4)
    (line,) = [line for line in a_report(models=(entry,)).to_markdown().splitlines() if line.startswith("| a")]
    assert len(re.findall(r"(?<!\\)\|", line)) == 6


def test_an_empty_report_still_says_where_it_comes_from() -> None:
    assert a_report(models=(), scores=(), training=None).to_markdown().startswith("Made by `affinage finetune …` on ")


def test_provenance_names_versions_and_machine() -> None:
    found = a_report().provenance
    assert found.affinage == __version__
    assert found.transformers is not None
    assert found.transformers.startswith("5.")
    assert found.seconds == 91.3
    assert found.hardware.cores >= 1
    assert found.hardware.cpu
    assert found.date.endswith("+00:00")


def test_provenance_names_all_that_decides_a_run() -> None:
    found = a_report().provenance
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    for package in ("torch", "transformers", "tokenizers", "numpy"):
        assert getattr(found, package) == version(package)
    assert (found.seed, found.recipe_sha256, found.data) == (0, "ab" * 32, {"a.jsonl": "cd" * 32})
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert a_report().provenance.threads == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert found.processes == 1
    older = found.model_dump(exclude={"tokenizers", "numpy", "threads", "processes"})
    assert Provenance(**older).threads is None


def test_threads_are_those_of_torch_where_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    assert (a_report().provenance.threads, a_report().provenance.processes) == (None, 1)


def test_the_cpu_is_read_from_the_kernel_with_a_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Imaginary CPU @ 3.00GHz\n", encoding="utf-8")
    monkeypatch.setattr(module, "CPUINFO", info)
    assert module.cpu_name() == "Imaginary CPU @ 3.00GHz"
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(module.platform, "processor", lambda: "")
    monkeypatch.setattr(module.platform, "machine", lambda: "riscv64")
    assert module.cpu_name() == "riscv64"


def test_the_accelerator_is_asked_of_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, stdout="Some GPU\nSome GPU\n", stderr="")

    monkeypatch.setattr(module.subprocess, "run", answer)
    assert module.accelerator() == "Some GPU, Some GPU"

    def nothing(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(module.subprocess, "run", nothing)
    assert module.accelerator() is None


@pytest.mark.parametrize(
    ("head", "pipeline"),
    [
        ("ForMaskedLM", "fill-mask"),
        ("ForSequenceClassification", "text-classification"),
        ("ForTokenClassification", "token-classification"),
        ("ForQuestionAnswering", "question-answering"),
    ],
)
def test_the_card(head: str, pipeline: str) -> None:
    report = a_report()
    card = model_card(report, base="camembert-base", architecture=f"Camembert{head}", recipe="finetune")
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "pipeline_tag": pipeline,
        "tags": ["affinage", "finetune"],
        "base_model": "camembert-base",
    }
    assert report.to_markdown() in body
    (code,) = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    assert f'AutoModel{head}.from_pretrained("sentiment", dtype=torch.float32)' in code
    compile(code, "card", "exec")


def test_a_path_of_this_machine_is_no_base_model(tmp_path: Path) -> None:
    card = model_card(a_report(), base=str(tmp_path), architecture="BertForTokenClassification", recipe="finetune")
    assert "base_model" not in card
    assert str(tmp_path) not in card
