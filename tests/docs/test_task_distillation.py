"""The worked examples of docs/task-distillation.md run as they stand there, on a tiny teacher."""

import re
import shlex
from pathlib import Path

import pytest

from affinage.cli.app import run
from tiny import save_tiny

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "task-distillation.md").read_text(encoding="utf-8")
SHORT = ["--max-steps", "4", "--set", "training.precision=fp32", "--teacher-recipe", "tune.yaml"]
TUNE = (
    "name: t\nsource: original\nkind: finetune\nstages:\n- {name: t, training: {max_steps: 4, row_length: 64, "
    "precision: fp32}}\n"
)


@pytest.mark.parametrize("title", ["A chatbot's intents", "A CSV of customer reviews"])
def test_a_worked_example(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^affinage (.+)$", section, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["distil", "predict"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "tune.yaml").write_text(TUNE)
    save_tiny(tmp_path).rename(tmp_path / "tiny")
    for line in lines:
        words = ["tiny" if word == "shipped:teacher" else word for word in shlex.split(line)]
        assert run([*words, *(SHORT if words[0] == "distil" else []), "--quiet"]) == 0, capsys.readouterr().err
    out = tmp_path / ("intents" if "intents" in title else "reviews")
    assert (out / "teacher" / "report.json").is_file()
    assert "kept above the baseline" in (out / "README.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out
