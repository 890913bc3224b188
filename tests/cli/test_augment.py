"""`affinage augment` on the command line: what it shows, and what it refuses with exit code 2."""

import json
from pathlib import Path

import pytest

from affinage.cli.app import run
from tiny import save_tiny
from tiny_data import write_task


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path, "camembert", "mlm")
    save_tiny(tmp_path, "camembert", "sequence", id2label={0: "negative", 1: "positive"})
    write_task(tmp_path / "reviews", "sentiment")
    write_task(tmp_path / "names", "ner")
    (tmp_path / "bad.vec").write_text("2 2\nun 1 2\ndeux 1\n", encoding="utf-8")
    return tmp_path


LINE = ("augment", "camembert-mlm", "--task", "sentiment", "--data", "reviews", "--out", "more", "--copies", "2")


def test_it_shows_what_it_made(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*LINE, "--teacher", "camembert-sequence", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    made = json.loads(out)
    assert err == ""
    assert made["originals"] == 8 and made["teacher"] == "camembert-sequence"
    assert len((place / "more" / "train.jsonl").read_text(encoding="utf-8").splitlines()) == 8 + made["copies"]
    assert run([*LINE, "--overwrite", "--language", "fr", "--no-pairs"]) == 0
    out, err = capsys.readouterr()
    assert "labelled by" in out and "nobody" in out
    assert "saved in more" in err and "2 copies of a text" in err
    assert "augment camembert-mlm" in (place / "more" / "README.md").read_text(encoding="utf-8")
    assert not (place / "more.partial").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--copies", "none"), "--copies 'none': expected a number from 1 to 1000, 'paper' or 'code'"),
        (("--language", "enn"), "unknown language 'enn'. Did you mean 'en'?"),
        (("--task", "ner", "--data", "names"), "task 'ner' (token) cannot be augmented"),
        (("--vectors", "bad.vec"), "bad.vec:3: expected a word and 2 numbers, with spaces between; got 1 numbers"),
        (("--vectors", "none.vec"), "none.vec: does not exist"),
        (("--vectors", "bad.vec", "--corpus", "reviews"), "give --vectors or --corpus, not both"),
        (("--corpus", "none.txt"), "corpus 'none.txt' does not exist"),
        (("--pairs",), "architecture 'camembert' knows no pairs of texts"),
        (("--teacher", "camembert-mlm"), "is not fine-tuned for this"),
        (("--probability", "0"), "--probability"),
        (("--candidates", "0"), "--candidates"),
        (("--column", "txt=label"), "Did you mean 'text'?"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(
    place: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    before = sorted(place.rglob("*"))
    assert run([*LINE, *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("error: ") == 1 and said in err.rpartition("error: ")[2]
    assert sorted(place.rglob("*")) == before
