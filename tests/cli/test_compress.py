"""`affinage compress` and `affinage list compressors` on the command line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from affinage.cli.app import run
from affinage.compression.base import compressors
from affinage.report.report import Report
from tiny_data import write_task
from tiny_tasks import tuned_teacher

Command = Callable[..., str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tuned_teacher(tmp_path, "sentiment", "bert").rename(tmp_path / "tuned")
    return tmp_path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line; what it writes, or its message where the exit code is 2."""

    def check(*arguments: str, code: int = 0) -> str:
        assert run(arguments) == code
        out, err = capsys.readouterr()
        if code:
            assert out == "" and "Traceback" not in err
        return err if code else out

    return check


def test_steps_and_a_plan_say_the_same(place: Path, command: Command) -> None:
    write_task(place / "reviews", "sentiment")
    data = ("--task", "sentiment", "--data", "reviews")
    small = ("--set", "training.batch_size=4", "--set", "training.evaluations=2", "--recover", "2", "-q")
    steps = ("--with", "prune-heads:keep=0.5", "--with", "int8-embeddings", "--calibration", "8")
    table = command("compress", "tuned", *steps, *data, *small, "--out", "small")
    assert "prune-heads:keep=0.5" in table and "int8-embeddings" in table and "2 steps" in table
    again = ("--plan", "small/plan.yaml", *data, "--out", "again", "--json", "-q")
    report = Report.from_json(command("compress", "tuned", *again))
    assert [entry.title for entry in report.ledger][1:] == ["prune-heads:keep=0.5", "int8-embeddings"]
    ours, theirs = ((place / name / "compressed.safetensors").read_bytes() for name in ("small", "again"))
    assert ours == theirs
    assert report.provenance.command.startswith("affinage compress tuned --plan small/plan.yaml")


def test_what_cannot_run_is_said_and_leaves_nothing(place: Path, command: Command) -> None:
    before = sorted(place.rglob("*"))
    model = ("compress", "tuned", "--out", "out")
    assert "say what to do, once" in command(*model, code=2)
    assert "say what to do, once" in command(*model, "--with", "int8", "--plan", "plan.yaml", code=2)
    assert "put 'prune-heads' before 'int8'" in command(*model, "--with", "int8", "--with", "prune-heads", code=2)
    assert "Did you mean 'int8'" in command(*model, "--with", "int9", code=2)
    assert "expected NAME or NAME:KEY=VALUE" in command(*model, "--with", "int8:x", code=2)
    assert "needs calibration" in command(*model, "--with", "int8-static", code=2)
    assert "give both --task and --data" in command(*model, "--with", "int8", "--task", "sentiment", code=2)
    assert "no such folder" in command("compress", "./none", "--with", "int8", "--out", "out", code=2)
    assert "keep" in command(*model, "--with", "prune-heads:keep=1.5", code=2)
    assert "--set training.x: the value '[' is not valid YAML" in command(
        *model, "--with", "int8", "--set", "training.x=[", code=2
    )
    assert "--tries: of a search" in command(*model, "--with", "int8", "--tries", "4", code=2)
    assert "--recipe and --set: of recovery" in command(
        *model, "--with", "int8", "--recipe", "nonsense", "--set", "training.seed=1", code=2
    )
    assert "--column: of a task's rows" in command(*model, "--with", "int8", "--column", "text=review", code=2)
    (place / "corpus.txt").write_text("some text\n" * 50)
    before = sorted(place.rglob("*"))
    assert "text serves a masked language model alone" in command(
        *model, "--with", "activation-svd", "--corpus", "corpus.txt", code=2
    )
    twice = ("--with", "drop-layers:keep=2", "--with", "prune-n-m:n=4", "--with", "prune-gradual:start=0.9")
    said = command(*model, *twice, code=2)
    assert "step 2: prune-n-m: n=4 of m=4" in said and "step 3: gradual pruning: start=0.9" in said
    deeper = ("--with", "drop-layers:keep=2", "--with", "drop-layers:keep=3")
    assert "step 2, 'drop-layers': keep=3 of 2 layers" in command(*model, *deeper, code=2)
    assert sorted(place.rglob("*")) == before


def test_compressors_are_listed(command: Command) -> None:
    found = {entry["name"]: entry for entry in json.loads(command("list", "compressors", "--json"))}
    assert set(found) == {entry.name for entry in compressors.entries()}
    assert found["int8"]["paradigm"] == "quantization" and found["int8"]["parameters"]["per_channel"] is True
    assert found["qat-int8"]["trained"] and not found["int8"]["trained"]
    shown = command("list", "compressors")  # long names are folded where the terminal is narrow
    assert "paradigm" in shown and "svd" in shown and "int8" in shown


def test_a_budget_is_read_before_anything_else(place: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(place.rglob("*"))
    model = ("compress", "tuned", "--out", "out", "--budget")
    assert "Did you mean 'latency'" in command(*model, "latancy<=0.5x", code=2)
    assert "nothing that is to become smaller" in command(*model, "drop<=1pt", code=2)
    assert "name a task and its rows" in command(*model, "size<=0.5x", code=2)
    assert "say what to do, once" in command(*model, "size<=0.5x", "--with", "int8", code=2)
    assert "--most-lost is of a plan" in command(*model, "size<=0.5x", "--most-lost", "0.1", code=2)
    assert "--storage: of a search" in command(
        "compress", "tuned", "--out", "out", "--with", "int8", "--storage", "x", code=2
    )
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'affinage[search]'" in command(*model, "size<=0.5x", code=2)
    assert sorted(place.rglob("*")) == before
