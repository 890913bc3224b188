"""`affinage`: the verbs, and how an error becomes one message and an exit code.

Exit codes: 0 done, 1 a check failed (or a bug in affinage), 2 what was given cannot be used, 130 Ctrl-C.
"""

import os
import shlex
import sys
import threading
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from affinage import __version__
from affinage.cli import (
    augment,
    baseline,
    benchmark,
    compress,
    demo,
    distil,
    evaluate,
    export,
    finetune,
    inspect,
    listing,
    plan,
    predict,
    pretrain,
    recipe,
    report,
    serve,
    unanswerable,
)
from affinage.cli.console import say, set_up
from affinage.cli.faults import explain, foreseen

_RESUMABLE = {"pretrain", "distil", "finetune", "baseline", "demo", "augment", "compress"}


class _Verbs(TyperGroup):
    def invoke(self, ctx: Any) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            resume = "; run the same command again to resume" if ctx.invoked_subcommand in _RESUMABLE else ""
            say(f"error: interrupted{resume}")
            raise typer.Exit(130) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"affinage {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=_Verbs,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback()
def _affinage(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Makes BERT-family encoders small and fast, and says exactly what that cost.

    \b
    affinage demo
    affinage pretrain corpus/ --out runs/teacher
    affinage distil runs/teacher --corpus corpus/ --out runs/student
    affinage finetune runs/student --task sentiment --data reviews/ --out runs/sentiment
    affinage compress runs/sentiment --with int8 --out runs/small
    affinage evaluate runs/sentiment --data reviews/
    affinage predict runs/sentiment "Un film magnifique."
    affinage export runs/sentiment --int8 dynamic --out sentiment-int8
    affinage serve sentiment-int8 --port 8000
    affinage benchmark runs/teacher-sentiment runs/sentiment
    affinage report runs/* --out report

    A verb's own page: affinage VERB --help
    """


app.command()(demo.demo)
app.command()(pretrain.pretrain)
app.command()(distil.distil)
app.command()(augment.augment)
app.command()(finetune.finetune)
app.command()(baseline.baseline)
app.command()(compress.compress)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(export.export)
app.command()(serve.serve)
app.command()(benchmark.benchmark)
app.command()(report.report)
app.command()(inspect.inspect)
app.command()(unanswerable.unanswerable)
app.command()(plan.plan)
app.add_typer(recipe.app, name="recipe")
app.add_typer(listing.app, name="list")


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. Errors that a person can cause are explained on stderr."""
    set_up(quiet="--quiet" in arguments or "-q" in arguments)
    command = typer.main.get_command(app)
    line = shlex.join(["affinage", *arguments])
    try:
        code = command.main(args=list(arguments), prog_name="affinage", standalone_mode=False, obj=line)
    except foreseen() as error:
        explained = explain(error)
        if explained is None:
            raise
        if _debugging():
            traceback.print_exc()
        message, code = explained
        say(f"error: {message}")
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the `affinage` command."""
    if not _debugging():
        sys.excepthook = _one_line
        threading.excepthook = _not_twice
    sys.exit(run(sys.argv[1:]))


def _debugging() -> bool:
    return os.environ.get("AFFINAGE_DEBUG", "") not in ("", "0")


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What is not foreseen is a bug: said in one line; Python then exits with 1."""
    if issubclass(kind, KeyboardInterrupt):
        say("error: interrupted")
        return
    first = next(iter(str(error).strip().splitlines()), "")
    say(f"error: unexpected {kind.__name__}: {first}; AFFINAGE_DEBUG=1 shows where, please report it")


def _not_twice(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread meets a full disk too; training hears of it at its next write, and then it is explained."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)
