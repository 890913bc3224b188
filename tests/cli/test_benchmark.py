"""`affinage benchmark` on the command line: tables, JSON, folder, and what is refused."""

from pathlib import Path

import pytest

from affinage.cli.app import run
from affinage.report.report import Report
from affinage.runtime.fresh import FreshCost
from tiny import save_tiny

FAST = ("--lengths", "8,16", "--threads", "1", "--repeats", "2", "--batch-size", "64")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models, and no process started for them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("affinage.workflows.benchmark.fresh_cost", lambda *_, **__: FreshCost(0.5, 10**8))
    save_tiny(tmp_path, "camembert", "sequence")
    save_tiny(tmp_path, "bert", "span")
    return tmp_path


def test_tables_json_and_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["benchmark", "camembert-sequence", "bert-span", *FAST]
    assert run([*line, "--out", "speed"]) == 0
    out, err = capsys.readouterr()
    assert "torch fp32 on the CPU, 1 thread\n" in err
    assert err.endswith("saved in speed\n")
    for said in ("p50 ms", "p95 ms", "tokens/s", "times as fast as camembert-sequence", "mixed", "peak memory MB"):
        assert said in out
    assert (place / "speed" / "report.md").is_file()
    assert run([*line, "--json", "-q"]) == 0
    out, err = capsys.readouterr()
    assert err == "warning: texts of the mixed list are cut at 64 tokens, all that one of the models takes\n"
    report = Report.from_json(out)
    assert report.command == "benchmark"
    assert report.provenance.command.startswith("affinage benchmark camembert-sequence bert-span --lengths 8,16")
    assert run([*line[:2], *FAST, "-q"]) == 0
    assert "times as fast" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ((), "MODEL"),
        (("./nowhere",), "model './nowhere': there is no such folder"),
        (("camembert-sequence", "./nowhere"), "model './nowhere': there is no such folder"),
        (("camembert-sequence", "--lengths", "16,many"), "--lengths '16,many': expected whole numbers"),
        (("camembert-sequence", "--lengths", ""), "--lengths '': expected whole numbers"),
        (("camembert-sequence", "--lengths", "8,65"), "model 'camembert-sequence' takes at most 64 tokens"),
        (("camembert-sequence",), "384 is too long"),
        (("camembert-sequence", *FAST, "--threads", "0"), "--threads"),
        (("camembert-sequence", *FAST, "--seconds", "-1"), "seconds: expected more than 0"),
        (("camembert-sequence", *FAST, "--out", "bert-span"), "output folder 'bert-span' exists"),
    ],
)
def test_what_is_refused(place: Path, capsys: pytest.CaptureFixture[str], line: tuple[str, ...], said: str) -> None:
    before = sorted(place.rglob("*"))
    assert run(["benchmark", *line]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert sorted(place.rglob("*")) == before
