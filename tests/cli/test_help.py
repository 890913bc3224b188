"""Every verb's `--help`: an example that the verb itself accepts, and no torch behind it."""

import re
import shlex
import subprocess
import sys

import pytest
import typer

from affinage import __version__
from affinage.cli.app import app, run

VERBS = [
    (),
    *(
        (verb,)
        for verb in (
            "demo",
            "pretrain",
            "distil",
            "augment",
            "compress",
            "finetune",
            "baseline",
            "evaluate",
            "predict",
            "benchmark",
            "report",
            "serve",
            "inspect",
            "unanswerable",
            "plan",
            "recipe",
            "list",
        )
    ),
    *(("recipe", verb) for verb in ("list", "show", "copy", "check")),
    *(("list", what) for what in ("losses", "compressors", "tasks")),
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_goes_to_stdout(verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*verb, "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: affinage")
    assert err == ""


@pytest.mark.parametrize("verb", [v for v in VERBS if v not in {("recipe",), ("list",)}], ids=" ".join)
def test_examples_are_command_lines_that_parse(verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    run([*verb, "--help"])
    examples = re.findall(r"^  affinage (.+)$", capsys.readouterr().out, re.MULTILINE)
    assert examples
    assert any(shlex.split(example)[: len(verb)] == list(verb) for example in examples)
    for example in examples:
        arguments = shlex.split(example.partition(" < ")[0])
        command, context = typer.main.get_command(app), None
        while hasattr(command, "get_command"):
            context = command.make_context("affinage", [], resilient_parsing=True)
            command = command.get_command(context, arguments.pop(0))
            assert command is not None, example
        command.make_context("affinage", arguments)  # raises for an option that is not there


def test_help_and_listing_import_neither_torch_nor_transformers() -> None:
    lines = [[*verb, "--help"] for verb in VERBS] + [["--version"], ["recipe", "list"], ["list", "tasks"], ["predic"]]
    code = (
        "import sys\nfrom affinage.cli.app import run\n"
        f"for line in {lines!r}: run(line)\n"
        "sys.exit(sum(m in sys.modules for m in ('torch', 'transformers', 'datasets', 'accelerate')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"affinage {__version__}\n"
