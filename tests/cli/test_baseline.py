"""`affinage baseline` on the command line: a table, a report as JSON, and one message for what cannot be used."""

from pathlib import Path

import pytest

from affinage.cli.app import run
from affinage.report.report import Report
from tiny import save_tiny
from tiny_data import STEPS, settings, write_task

LINE = ("baseline", "camembert-mlm", "--task", "sentiment", "--data", "reviews", "--out", "out")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path)
    write_task(tmp_path / "reviews", "sentiment")
    return tmp_path


@pytest.mark.usefixtures("place")
def test_both_answers_are_shown_metric_by_metric(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*LINE, *settings(STEPS)]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    head = lines.index(next(line for line in lines if line[:4] == ["task", "part", "metric", "model"]))
    shown = [("accuracy", "majority"), ("accuracy", "frozen"), ("macro_f1", "majority"), ("macro_f1", "frozen")]
    assert [tuple(line[2:4]) for line in lines[head + 1 : head + 5]] == shown
    assert ["steps", "2"] in lines
    assert "saved in out" in err


@pytest.mark.usefixtures("place")
def test_the_report_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*LINE, *settings(STEPS), "--seed", "4", "--max-steps", "1", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    report = Report.from_json(out)
    assert report == Report.from_json(Path("out/report.json").read_text(encoding="utf-8"))
    assert (report.provenance.seed, report.training.steps if report.training else 0) == (4, 1)
    assert report.provenance.command.startswith("affinage baseline camembert-mlm --task sentiment")
    assert err == ""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--task", "sentimant"), "unknown task 'sentimant'. Did you mean 'sentiment'?"),
        (("--recipe", "mini-camembert"), "is for pretrain"),
        (("--set", "training.learning_rate=much"), "training.learning_rate"),
        (("--set", "training.learning_rat=1"), "unknown key 'learning_rat'. Did you mean 'learning_rate'?"),
        (("--column", "txt=a"), "unknown field of task 'sentiment' 'txt'. Did you mean 'text'?"),
        (("--max-steps", "0"), "--max-steps"),
        (("--out", "reviews"), "output folder 'reviews' exists"),
        (("--data", "nowhere/at/all"), "nowhere/at/all"),
    ],
)
def test_one_message_and_nothing_left_behind(
    place: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    before = sorted(place.rglob("*"))
    assert run([*LINE, *more]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.rpartition("error: ")[2]
    assert sorted(place.rglob("*")) == before


@pytest.mark.usefixtures("place")
def test_options_that_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(LINE[:2]) == 2
    assert "--task" in capsys.readouterr().err
