"""What README and docs show is true: commands parse, Python runs, YAML is valid, links lead somewhere."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import affinage
import affinage.losses  # registers every loss
from affinage.cli.app import app, run
from affinage.compression.base import Resources, compressors
from affinage.compression.plan import Plan, step_of
from affinage.data.task import Task, load_task
from affinage.errors import InputError
from affinage.evaluation.metrics import metric
from affinage.losses.base import distillation_losses
from affinage.recipe import Recipe, packaged_recipes, parse_overrides
from tiny import save_tiny, tiny_model
from tiny_data import rows_of, write_corpus, write_rows, write_task

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "README.fr.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[Any]:
    """Every block of a language, with its page and line as the test's name."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text[: block.start()].count("\n") + 1
            found.append(pytest.param(block[1], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


def commands(pattern: str) -> list[Any]:
    """The arguments of every `affinage …` that the pattern finds; those with … in them are no whole commands."""
    found = []
    for page in PAGES:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            for command in re.findall(pattern, line):
                arguments = shlex.split(command, comments=True)[1:]
                if arguments and "…" not in command:
                    found.append(pytest.param(arguments, id=f"{page.relative_to(ROOT)}:{number}"))
    return found


LINES = commands(r"^(?:accelerate launch --num_processes 2 -m )?(affinage .+)")
MENTIONS = commands(r"`(affinage [^`]+)`")
KEYS = re.compile(r"`((?:student|training|masking|stages|losses\.\d)\.[a-z0-9_.]+)(?:=[^`]*)?`")


def command_of(arguments: list[str]) -> tuple[Any, list[str]]:
    """The command that the first arguments name, and the rest of them."""
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while rest and hasattr(command, "commands"):
        name = rest.pop(0)
        assert name in command.commands, f"no verb {name}"
        command = command.commands[name]
    return command, rest


def test_there_is_something_to_test() -> None:
    assert len(LINES) > 25
    assert len(blocks("python")) >= 3
    assert {line.values[0][0] for line in LINES} == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("line", MENTIONS)
def test_what_the_text_mentions_exists(line: list[str]) -> None:
    command, rest = command_of(line)
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= known


@pytest.mark.parametrize("line", LINES)
def test_commands_parse(line: list[str]) -> None:
    command, arguments = command_of(line)
    given = command.make_context("affinage", arguments).params  # raises for an option that is not there
    if given.get("task"):
        # `urgency` is the task that docs/extending.md adds.
        assert given["task"] == "urgency" or load_task(given["task"]).name == given["task"]
    if command.name == "compress":
        assert all(step_of(text).build() for text in given["steps"] or ())
    if given.get("recipe") or given.get("settings"):
        recipe = given.get("recipe") or given.get("name") or ("task" if given.get("task") else "distilcamembert")
        assert recipe in packaged_recipes() or recipe == "mine.yaml"
        Recipe.load("distilcamembert" if recipe == "mine.yaml" else recipe, parse_overrides(given["settings"] or ()))
    for setting in given.get("columns") or ():
        assert setting.partition("=")[0] in load_task(given["task"]).columns


@pytest.mark.parametrize("key", sorted({key for page in PAGES for key in KEYS.findall(page.read_text("utf-8"))}))
def test_recipe_keys_in_the_text_exist(key: str) -> None:
    problem = ""
    try:
        Recipe.load("mini-camembert", {key: "[]"})
    except InputError as error:  # an empty list is no value for most of them
        problem = str(error)
    assert "unknown key" not in problem


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the models and data that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path, "camembert", "mlm", max_position_embeddings=514).rename("teacher")
    save_tiny(tmp_path, "camembert", "mlm").rename("student")
    labels = {0: "negative", 1: "positive"}
    save_tiny(tmp_path, "camembert", "sequence", id2label=labels).rename("student-sentiment")
    save_tiny(tmp_path, "camembert", "token", id2label={0: "O", 1: "B-LOC", 2: "I-LOC"}).rename("student-ner")
    write_corpus(tmp_path / "texts", lines=1_000)
    write_task(tmp_path / "reviews", "sentiment")
    return tmp_path


@pytest.fixture
def registries_as_they_were() -> Iterator[None]:
    registries: list[Any] = [distillation_losses, compressors]
    before = [dict(registry._entries) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry._entries.clear()
        registry._entries.update(entries)


@pytest.mark.usefixtures("registries_as_they_were")
@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {entry.name for entry in distillation_losses.entries()}
    methods = {entry.name for entry in compressors.entries()}
    for name in re.findall(r'out="(.+?)"', code):
        shutil.rmtree(name, ignore_errors=True)
    if "sentiment-onnx/" in code:
        affinage.export("student-sentiment", out="sentiment-onnx")
    exec(compile(code, "docs", "exec"), {"__name__": "docs"})
    shown = capsys.readouterr().out
    assert bool(shown) == ("print(" in code)
    for name in {entry.name for entry in compressors.entries()} - methods:
        method: Any = compressors.build(name, {"below": 1.0})
        assert not method.apply(tiny_model("bert"), Resources()).bert.encoder.layer[0].output.dense.weight.any()
    for name in {entry.name for entry in distillation_losses.entries()} - before:
        loss = distillation_losses.build(name)
        assert loss.needs
        assert Recipe.load("distilcamembert", {"losses": f"[{{name: {name}, weight: 0.5, params: {{scale: 2.0}}}}]"})


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_is_a_task_or_a_plan(text: str) -> None:
    if "steps:" in text:
        assert Plan.of(yaml.safe_load(text)).checked()
        return
    task = Task.model_validate({"name": "shown", **yaml.safe_load(text)})
    assert [metric(name) for name in task.metrics]


def test_the_metrics_of_the_page_exist_and_are_those_of_the_tasks() -> None:
    table = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8").partition("| metric | definition |")[2]
    shown = {
        name
        for row in table.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert all(metric(name) for name in shown)
    used = {name for task in ("sentiment", "ner", "nli", "qa") for name in load_task(task).metrics}
    assert used <= shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_the_error_shown_is_the_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of("sentiment")
    rows[16] = {"text": "Un fromage.", "stars": 3}
    write_rows(place / "reviews" / "train.jsonl", rows)
    line = ["finetune", "student", "--task", "sentiment", "--data", "reviews", "--out", "out"]
    assert run(line) == 2
    shown = re.findall(r"^error: .+$", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert shown == [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


def test_the_readme_gives_a_python_example_on_its_first_screen() -> None:
    first = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    assert "```python" in first
    assert affinage.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
