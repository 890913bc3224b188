"""Every verb on tiny models: results on stdout, the rest on stderr, JSON that parses."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from affinage.cli.app import run
from affinage.recipe import Recipe
from affinage.report.report import Report
from tiny import SENTENCES, save_tiny, tiny_model, tiny_tokenizer

Command = Callable[..., str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(place: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line that must succeed; its stdout."""

    def check(*arguments: str, quiet: bool = True) -> str:
        code = run(arguments)
        out, err = capsys.readouterr()
        assert code == 0, err
        if quiet:
            assert err == ""
        return out

    return check


def test_the_road(command: Command, place: Path) -> None:
    """Teacher -> student -> task model -> scores and predictions."""
    save_tiny(place, "camembert", "mlm")
    lines = [f"{i} {text}" for i in range(20) for text in SENTENCES]
    (place / "a.txt").write_text("\n".join(lines[::2]), encoding="utf-8")
    (place / "b.txt").write_text("\n".join(lines[1::2]), encoding="utf-8")
    short = ("--max-steps", "2", "--seed", "7", "--set", "training.batch_size=4", "--json", "-q")
    line = ("distil", "camembert-mlm", "--corpus", "a.txt", "b.txt", "--out", "student", "--set", "held_out=0.3")
    report = Report.from_json(command(*line, "--set", "training.row_length=32", *short))
    assert len(report.provenance.data) == 2
    assert report.provenance.seed == 7
    assert report.provenance.command.startswith("affinage distil camembert-mlm --corpus a.txt b.txt --out student")
    assert report.training is not None
    assert report.training.steps == 2

    rows = [{"avis": text, "label": ["bon", "mauvais"][i % 2]} for i, text in enumerate(lines)]
    (place / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = ("--task", "sentiment", "--data", "rows.jsonl", "--column", "text=avis")
    tuned = Report.from_json(command("finetune", "student", *data, "--out", "tuned", *short))
    assert {score.metric for score in tuned.scores} == {"accuracy", "macro_f1"}
    assert Report.from_json((place / "tuned" / "report.json").read_text(encoding="utf-8")) == tuned

    shown = command("evaluate", "tuned", *data[2:], "--quiet")
    assert "accuracy" in shown
    assert "200" in shown
    scores = Report.from_json(command("evaluate", "tuned", *data, "--json", "-q")).scores
    assert all(0 <= score.value <= 1 for score in scores)
    answers = command("predict", "tuned", "Un bon couteau.", "Une cave.", "--json").splitlines()
    assert [json.loads(answer)["label"] in ("bon", "mauvais") for answer in answers] == [True, True]
    assert json.loads(command("inspect", "tuned", "--length", "16", "--json"))["layers"] == 2
    assert "parameters" in command("inspect", "tuned", "--length", "16")
    assert not list(place.glob("*.partial"))


def task_folder(place: Path, head: str, labels: tuple[str, ...] = ()) -> str:
    path = place / head
    settings: dict[str, Any] = {"id2label": dict(enumerate(labels))} if labels else {}
    tiny_model("camembert", head, **settings).save_pretrained(path)
    tiny_tokenizer("camembert").save_pretrained(path)
    return str(path)


NLI = ("entailment", "neutral", "contradiction")


def test_predict_shows_each_kind_of_answer(command: Command, place: Path) -> None:
    sequence = task_folder(place, "sequence", ("bon", "mauvais"))
    first, second = command("predict", sequence, "Un couteau.", "--top-k", "2").splitlines()[:2]
    assert first == "Un couteau."
    assert second.split()[1] in ("bon", "mauvais")

    nli = task_folder(place, "pair", NLI)
    assert "Il pleut. | Le sol est sec." in command("predict", nli, "Il pleut.", "--hypothesis", "Le sol est sec.")
    answer = json.loads(command("predict", nli, "Il pleut.", "--labels", "sport, cuisine", "--json"))
    assert sorted(answer["labels"]) == ["cuisine", "sport"]
    assert sum(answer["scores"]) == pytest.approx(1)
    nearly_flat = ("--method", "entailment_probability_softmax", "--template", "On y parle de {}.")
    assert "sport" in command("predict", nli, "Il pleut.", "--labels", "sport,cuisine", *nearly_flat)

    ner = task_folder(place, "token", ("O", "B-PER", "I-PER"))
    text = "Claire a quitté Lyon."
    entities = json.loads(command("predict", ner, text, "--json"))["entities"]
    assert all(text[e["start"] : e["end"]] == e["word"] for e in entities)
    assert command("predict", ner, text).startswith(text)

    qa = task_folder(place, "span")
    asked = ("--question", "Qui a quitté Lyon ?")
    answer = json.loads(command("predict", qa, *asked, "--context", text, "--json"))
    assert text[answer["start"] : answer["end"]] == answer["answer"]
    assert command("predict", qa, *asked, "--context", text).startswith("Qui a quitté Lyon ? | Claire")
    assert len(command("predict", qa, *asked, text, text, "--json").splitlines()) == 2

    filled = command("predict", task_folder(place, "mlm"), "Le train de <mask>.", "--top-k", "3").splitlines()
    assert len(filled) == 4


def test_predict_reads_files_and_standard_input(command: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = task_folder(place, "pair", NLI)
    (place / "texts.txt").write_bytes(b"\xef\xbb\xbfUn.\r\n\r\nDeux, \xc3\xa9t\xc3\xa9.\r\n")
    line = ("predict", model, "--labels", "a,b", "--json", "-q")
    found = [json.loads(answer)["sequence"] for answer in command(*line, "--file", "texts.txt").splitlines()]
    assert found == ["Un.", "Deux, été."]

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("Trois, été.".encode()), encoding="ascii"))
    assert json.loads(command(*line))["sequence"] == "Trois, été."

    pairs = [{"premise": "Il pleut.", "hypothesis": h} for h in ("Le sol est sec.", "Il fait beau.")]
    (place / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    assert len(command("predict", model, "--file", "pairs.jsonl", "--json").splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.txt", b"", "a.txt is empty: expected one text a line"),
        ("a.txt", b"\n \n", "a.txt is empty"),
        ("a.txt", b"bon\n\xe9t\xe9\n", "a.txt:2: not UTF-8 (byte 1 of the line)"),
        ("a.jsonl", b'"bon"\n{"text\n', "a.jsonl:2: not JSON"),
    ],
)
def test_predict_names_the_line_it_cannot_read(
    place: Path, capsys: pytest.CaptureFixture[str], name: str, data: bytes, said: str
) -> None:
    (place / name).write_bytes(data)
    assert run(["predict", task_folder(place, "sequence"), "--file", name]) == 2
    assert said in capsys.readouterr().err


def test_predict_with_nothing_to_read(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert run(["predict", "x"]) == 2
    assert "give texts, --file FILE, or lines on standard input" in capsys.readouterr().err


def test_recipes_are_listed_shown_copied_and_checked(command: Command, place: Path) -> None:
    names = [entry["name"] for entry in json.loads(command("recipe", "list", "--json"))]
    assert "distilcamembert" in names
    shown = command("recipe", "list")
    for name in names:
        assert name in shown
        assert command("recipe", "check", name).startswith(f"{name}: a valid recipe to ")
        command("recipe", "copy", name)
        assert (place / f"{name}.yaml").read_text(encoding="utf-8") == command("recipe", "show", name)
        assert Recipe.load(place / f"{name}.yaml") == Recipe.load(name)
    assert run(["recipe", "copy", "finetune"]) == 2
    assert command("recipe", "copy", "finetune", "--overwrite", quiet=False).strip() == "finetune.yaml"
    (place / "mine").mkdir()
    assert command("recipe", "copy", "finetune", "mine").strip() == "mine/finetune.yaml"


def test_losses_and_tasks_are_listed(command: Command) -> None:
    losses = {entry["name"]: entry for entry in json.loads(command("list", "losses", "--json"))}
    assert losses["soft_kl"]["parameters"] == {"temperature": 2.0, "tokens": "real"}
    assert "1503.02531" in losses["soft_kl"]["source"]
    assert all(name in command("list", "losses") for name in losses)
    tasks = {entry["name"] for entry in json.loads(command("list", "tasks", "--json"))}
    assert {"ner", "nli", "qa", "sentiment", "topics", "rating", "cola", "squad2"} <= tasks
    assert all(name in command("list", "tasks") for name in tasks)


def test_only_the_first_of_several_processes_speaks(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert command("recipe", "list") == ""
    assert command("recipe", "show", "finetune") == ""
