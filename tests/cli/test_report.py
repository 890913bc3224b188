"""`affinage report` as a person runs it, and what can be wrong with what it is given."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from affinage.cli.app import run
from affinage.report.report import Report
from tiny_runs import right, write_runs, write_tuned

Refused = Callable[..., str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path / "runs")
    return tmp_path


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command line that must be refused; its message."""

    def check(*arguments: str) -> str:
        before = sorted(place.rglob("*"))
        assert run(["report", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "Traceback" not in err
        assert sorted(place.rglob("*")) == before, "something was left behind"
        return err.rpartition("error: ")[2]

    return check


def test_tables_go_to_stdout_and_pages_to_the_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(p.relative_to(place)) for p in sorted((place / "runs").iterdir())]  # as a shell makes it of runs/*
    assert run(["report", *folders, "--out", "report"]) == 0
    out, err = capsys.readouterr()
    assert "Table 1. Structure and speed" in out
    assert "Table 2. Scores" in out
    assert "nli (accuracy): not informative" in out
    assert err.endswith("saved in report; open report/report.html\n")
    assert sorted(p.name for p in (place / "report").iterdir()) == ["report.html", "report.json", "report.md"]
    assert run(["report", *folders, "--out", "report", "--overwrite", "--json", "-q"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    made = Report.from_json(out)
    assert made.models[0].name == "teacher"
    assert made.provenance.command.startswith("affinage report runs/baseline-ner ")
    assert (place / "report" / "report.json").read_text(encoding="utf-8") == made.to_json()


def test_the_keys_that_others_read(place: Path) -> None:
    assert run(["report", "runs", "--out", "report", "-q"]) == 0
    made = json.loads((place / "report" / "report.json").read_text(encoding="utf-8"))
    assert made["schema_version"] == 1
    assert {"name", "parameters", "layers", "size_bytes", "path"} <= made["models"][0].keys()
    keys = {"model", "task", "metric", "value", "low", "high", "n", "seeds", "baseline"}
    assert keys <= made["scores"][0].keys()
    keys = {"model", "engine", "batch", "length", "p50_ms", "p95_ms", "tokens_per_second"}
    assert keys <= made["latency"][0].keys()
    assert "provenance" in made


def test_what_is_wrong(refused: Refused, place: Path) -> None:
    assert "--out" in refused("runs")
    assert "Missing argument" in refused("--out", "report")
    assert "'nowhere' does not exist" in refused("nowhere", "--out", "report")
    assert "Did you mean 'teacher'?" in refused("runs", "--reference", "teachr", "--out", "report")
    assert "choose another --out" in refused("runs/teacher", "--out", "runs", "--overwrite")
    (place / "report").mkdir()
    assert "output folder 'report' exists" in refused("runs", "--out", "report")
    write_tuned(place / "other", "runs/student", {"accuracy": right(0.5)}, references="x", seed=7)
    said = refused("runs", "other", "--out", "new")
    assert "different examples of sentiment" in said
    assert "'other'" in said
    (place / "runs" / "teacher" / "report.json").write_text("no JSON")
    assert "'runs/teacher/report.json' cannot be used: not a report" in refused("runs", "--out", "new")


def test_neither_the_page_of_help_nor_the_report_needs_torch(place: Path) -> None:
    code = (
        "import sys\nfrom affinage.cli.app import run\n"
        "assert run(['report', '--help']) == 0\n"
        "assert not {'matplotlib', 'jinja2', 'numpy', 'torch'} & set(sys.modules)\n"
        "assert run(['report', 'runs', '--out', 'report', '-q']) == 0\n"
        "assert not {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_package_names_its_cure(place: Path) -> None:
    code = (
        "import sys\nsys.modules['matplotlib'] = None\nfrom affinage.cli.app import run\n"
        "sys.exit(run(['report', 'runs', '--out', 'report']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: this needs the package 'matplotlib'; install it with: pip install")
