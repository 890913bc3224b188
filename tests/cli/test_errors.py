"""What a person can get wrong: one message on stderr, exit code 2, nothing on stdout, nothing left behind."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from affinage.cli.app import run
from affinage.errors import CheckFailed
from tiny import SENTENCES, save_tiny

Refused = Callable[..., str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a corpus, labelled rows and models in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text(
        "\n".join(f"{i} {text}" for i in range(20) for text in SENTENCES), encoding="utf-8"
    )
    rows = [f'{{"text": "{text}", "label": {i % 2}}}' for i, text in enumerate(SENTENCES)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    save_tiny(tmp_path, "camembert", "mlm")
    save_tiny(tmp_path, "camembert", "base")
    return tmp_path


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command line that must be refused; its message."""

    def check(*arguments: str, code: int = 2) -> str:
        before = sorted(place.rglob("*"))
        assert run(arguments) == code
        out, err = capsys.readouterr()
        assert out == ""
        log, error, message = err.rpartition("error: ")
        assert error
        assert "error" not in log
        assert "Traceback" not in err
        assert sorted(place.rglob("*")) == before, "something was left behind"
        return error + message

    return check


FINETUNE = ("finetune", "camembert-mlm", "--task", "sentiment", "--data", "rows.jsonl", "--out", "out")
DISTIL = ("distil", "camembert-mlm", "--corpus", "corpus.txt", "--out", "out")
PRETRAIN = ("pretrain", "corpus.txt", "--out", "out")


def test_an_unknown_verb(refused: Refused) -> None:
    assert "No such command 'distill'. Did you mean 'distil'?" in refused("distill")


def test_an_unknown_option(refused: Refused) -> None:
    message = refused(*FINETUNE, "--recipee", "x")
    assert "No such option: --recipee" in message
    assert "--recipe" in message.partition("--recipee")[2]
    assert "see: affinage finetune --help" in message


def test_a_missing_option_and_no_verb(refused: Refused) -> None:
    assert "--out" in refused("pretrain", "corpus.txt")
    assert "Missing command" in refused()
    assert "--corpus" in refused("distil", "camembert-mlm", "--out", "out")


@pytest.mark.parametrize("value", ["0", "-3", "many"])
def test_a_number_out_of_range(refused: Refused, value: str) -> None:
    assert "--max-steps" in refused(*PRETRAIN, "--max-steps", value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("pretrain", "nothing.txt", "--out", "out"), "corpus 'nothing.txt' does not exist"),
        ((*PRETRAIN, "--from", "./nowhere"), "model './nowhere': there is no such folder"),
        (("distil", "./nowhere", "--corpus", "corpus.txt", "--out", "out"), "model './nowhere'"),
        (("distil", "camembert-mlm", "--corpus", "none.txt", "--out", "out"), "corpus 'none.txt' does not exist"),
        (("finetune", "./nowhere", *FINETUNE[2:]), "model './nowhere'"),
        ((*FINETUNE[:5], "none.jsonl", "--out", "out"), "none.jsonl"),
        (("evaluate", "./nowhere", "--task", "ner", "--data", "rows.jsonl"), "model './nowhere'"),
        (("predict", "./nowhere", "Bonjour."), "model './nowhere'"),
        (("predict", "camembert-mlm", "--file", "none.txt"), "file 'none.txt' cannot be read: No such file"),
        (("inspect", "./nowhere"), "model './nowhere'"),
        (("recipe", "check", "none.yaml"), "recipe file 'none.yaml' does not exist"),
        (("recipe", "copy", "finetune", "no/where.yaml"), "there is no folder 'no'"),
    ],
)
def test_a_path_that_does_not_exist(refused: Refused, line: tuple[str, ...], said: str) -> None:
    assert said in refused(*line)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ((*FINETUNE[:3], "sentimant", *FINETUNE[4:]), "unknown task 'sentimant'. Did you mean 'sentiment'?"),
        (("evaluate", "camembert-mlm", "--task", "nerr", "--data", "rows.jsonl"), "Did you mean 'ner'?"),
        ((*DISTIL, "--recipe", "distilcamembrt"), "unknown recipe 'distilcamembrt'. Did you mean 'distilcamembert'?"),
        (("recipe", "show", "finetun"), "Did you mean 'finetune'?"),
        ((*DISTIL, "--set", "training.learning_rat=1"), "unknown key 'learning_rat'. Did you mean 'learning_rate'?"),
        ((*DISTIL, "--set", "stages.0.losses.0.name=soft_kk"), "unknown loss 'soft_kk'. Did you mean 'soft_kl'?"),
        ((*DISTIL, "--set", "stages.0.losses.0.params.temprature=1"), "Did you mean 'temperature'?"),
        ((*FINETUNE, "--column", "txt=label"), "Did you mean 'text'?"),
        ((*FINETUNE, "--column", "text=review"), "review"),
        (("predict", "camembert-mlm", "<mask>", "--task", "qua"), "Did you mean 'qa'?"),
    ],
)
def test_a_misspelt_name_brings_the_nearest_one(refused: Refused, line: tuple[str, ...], said: str) -> None:
    assert said in refused(*line)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ((*DISTIL, "--set", "training.seed"), "--set 'training.seed': expected key=value"),
        ((*DISTIL, "--set", "=3"), "--set '=3': expected key=value"),
        ((*DISTIL, "--set", "training.seed=[1"), "not valid YAML"),
        ((*DISTIL, "--set", "training.learning_rate=-1"), "training.learning_rate"),
        ((*DISTIL, "--set", "name.first=x"), "'name' holds a value, not keys"),
        ((*FINETUNE, "--column", "text"), "--column 'text': expected field=column"),
        ((*FINETUNE, "--column", "text=a", "--column", "text=b"), "the field 'text' is given twice"),
        ((*DISTIL, "--recipe", "finetune"), "is for finetune"),
        ((*PRETRAIN, "--recipe", "distilcamembert"), "is for distil"),
        (("predict", "camembert-mlm", "a", "--file", "corpus.txt"), "texts or --file, not both"),
        (("predict", "camembert-mlm", "a", "--labels", " , "), "--labels ' , '"),
        (("predict", "camembert-mlm", "Pas de masque."), "exactly one <mask>"),
        (("inspect", "camembert-mlm", "--length", "1000"), "this model takes 1 to 64 tokens"),
        (("distil", "camembert-base", *DISTIL[2:]), "no masked language model head"),
        (("evaluate", "camembert-mlm", "--task", "sentiment", "--data", "rows.jsonl"), "not fine-tuned"),
        (("recipe", "copy", "finetune", "rows.jsonl"), "a recipe file ends in .yaml"),
        ((*DISTIL[:2], "--task", "sentiment", "--out", "out"), "--task sentiment: name its rows with --data"),
        ((*DISTIL[:2], "--data", "rows.jsonl", "--out", "out"), "--data rows.jsonl: say what it is with --task"),
        ((*DISTIL, "--unlabelled", "corpus.txt"), "--unlabelled is for a task"),
        ((*DISTIL[:2], *FINETUNE[2:], "--dry-run"), "--dry-run is for distillation on text"),
        ((*DISTIL[:2], *FINETUNE[2:], "--recipe", "distilcamembert"), "has no stage on task"),
        ((*DISTIL, "--recipe", "task"), "has no stage on text, which --corpus would feed; give --task and --data"),
    ],
)
def test_a_value_that_cannot_be_used(refused: Refused, line: tuple[str, ...], said: str) -> None:
    assert said in refused(*line)


@pytest.mark.parametrize("line", [PRETRAIN, DISTIL, FINETUNE], ids=lambda line: line[0])
def test_an_output_folder_that_exists(refused: Refused, place: Path, line: tuple[str, ...]) -> None:
    (place / "out").mkdir()
    settings = ("--set", "training.row_length=32", "--set", "held_out=0.3")
    shape = ("--set", "student.tokenizer.vocab_size=120") if line is PRETRAIN else ()
    assert "output folder 'out' exists; choose another --out" in refused(*line, *settings, *shape)


def test_every_problem_of_a_recipe_is_named_at_once(refused: Refused, place: Path) -> None:
    (place / "mine.yaml").write_text(
        "name: mine\nsource: original\nkind: distil\nstages:\n- name: one\n  losses:\n"
        "  - {name: soft_kk}\n  - {name: soft_kl, params: {temperature: -2}}\n"
    )
    message = refused("recipe", "check", "mine.yaml")
    assert "mine.yaml" in message
    assert "Did you mean 'soft_kl'?" in message
    assert "temperature: Input should be greater than 0" in message


def test_a_recipe_that_fine_tunes_names_no_losses(refused: Refused, place: Path) -> None:
    (place / "mine.yaml").write_text(
        "name: mine\nsource: original\nkind: finetune\nstages:\n- {name: one, losses: [{name: mlm}]}\n"
    )
    assert "stage 'one' names losses" in refused("recipe", "check", "mine.yaml")
    assert "Did you mean 'ner'?" in refused("recipe", "check", "mine.yaml", "--set", "task=neer")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), "the disk is full"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), "'/root/x': permission denied"),
        (OSError(errno.EIO, "Input/output error", "x"), "'x': Input/output error"),
        (ModuleNotFoundError("No module named 'torch'", name="torch.nn"), "pip install 'affinage[train]'"),
    ],
)
def test_the_machine_says_no(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str
) -> None:
    fail_with(monkeypatch, error)
    assert said in refused("inspect", "camembert-mlm")


def test_safetensors_says_that_the_disk_is_full(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    fail_with(monkeypatch, SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert "the disk is full" in refused("inspect", "camembert-mlm")


def test_a_failed_check_exits_with_1(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, CheckFailed("too slow"))
    assert refused("inspect", "camembert-mlm", code=1) == "error: too slow\n"


@pytest.mark.parametrize("error", [RuntimeError("shapes"), ValueError("bug"), ModuleNotFoundError(name="x")])
def test_a_bug_is_not_explained_away(place: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    fail_with(monkeypatch, error)
    with pytest.raises(type(error)):
        run(["inspect", "camembert-mlm"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("inspect", "camembert-mlm"), "error: interrupted\n"),
        (DISTIL, "error: interrupted; run the same command again to resume\n"),
    ],
)
def test_ctrl_c(refused: Refused, monkeypatch: pytest.MonkeyPatch, line: tuple[str, ...], said: str) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert refused(*line, code=130) == said


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """The workflows behind `inspect` and `distil` end with this error."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("affinage.workflows.inspect.inspect", fail)
    monkeypatch.setattr("affinage.workflows.distil.distil", fail)


def started(place: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "affinage", *arguments],
        cwd=place,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.parametrize("debug", ["", "1"])
def test_a_bug_is_one_line_unless_asked(place: Path, debug: str) -> None:
    code = (
        "import sys, affinage.cli.app as a; sys.argv = ['affinage', 'list', 'tasks']; a.run = lambda _: 1 / 0; a.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "AFFINAGE_DEBUG": debug},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert ("Traceback" in done.stderr) == bool(debug)
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert debug or done.stderr.count("\n") == 1


def test_ctrl_c_while_it_trains_leaves_a_checkpoint_and_no_model(place: Path) -> None:
    line = (*DISTIL, "--set", "training.row_length=32", "--set", "held_out=0.3", "--set", "training.batch_size=2")
    line = (*line, "--max-steps", "100000", "--set", "training.logging_steps=1")
    process = started(place, *line)
    try:
        assert process.stderr is not None
        said = next((line for line in process.stderr if "step 0/100000" in line), "")  # the last word before step 1
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert said, err
    assert (process.returncode, out) == (130, ""), err
    assert err.endswith("error: interrupted; run the same command again to resume\n")
    assert "Traceback" not in err
    assert not (place / "out").exists()
    assert list((place / "out.partial" / "checkpoints").glob("checkpoint-*/trainer_state.json"))


def test_a_reader_that_goes_away_is_no_error(place: Path) -> None:
    command = f"{sys.executable} -m affinage recipe show distilcamembert | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
