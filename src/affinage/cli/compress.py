"""`affinage compress`: arguments of the workflow of that name."""

from pathlib import Path
from typing import Annotated, Any

import typer

from affinage.cli.options import Columns, Json, Model, Out, Overwrite, Quiet, Settings, columns_of
from affinage.cli.results import show_report
from affinage.errors import InputError, legible


def compress(
    ctx: typer.Context,
    model: Model,
    out: Out,
    steps: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="NAME[:KEY=VALUE,…]",
            help="A method; repeat for several, in their order. See: affinage list compressors.",
        ),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="Steps, recovery and limits in YAML.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="LIMITS", help='Search a plan: "latency<=0.5x, size<=20MB, drop<=1pt".'),
    ] = None,
    tries: Annotated[
        int | None,
        typer.Option(
            "--tries", metavar="N", min=1, help="Of a budget: plans that are looked at without training. Default: 48."
        ),
    ] = None,
    finalists: Annotated[
        int | None,
        typer.Option("--finalists", metavar="N", min=1, help="Of these: recovered, measured and scored. Default: 8."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", metavar="URL", help="Database by which workers share a search. Default: a file."),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="What the model is fine-tuned for.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="PATH|NAME", help="The task's rows: as for affinage finetune.")
    ] = None,
    columns: Columns = None,
    corpus: Annotated[
        list[str] | None, typer.Option("--corpus", metavar="CORPUS", help="Raw text: files, folders. Repeatable.")
    ] = None,
    recover: Annotated[
        int | None,
        typer.Option(
            "--recover",
            metavar="N",
            min=0,
            help="Steps of distillation after each step (default 0); with --budget, of each plan (300).",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", metavar="MODEL", help="What recovery distils from. Default: the model itself."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="NAME|FILE", help="How recovery trains. Default: task.")
    ] = None,
    settings: Settings = None,
    most_lost: Annotated[
        float | None,
        typer.Option(
            "--most-lost", metavar="X", min=0, help="Undo a step that loses more of the score; 0.01: a point."
        ),
    ] = None,
    calibration: Annotated[
        int | None,
        typer.Option("--calibration", metavar="ROWS", min=1, help="Rows that methods measure on. Default: 256."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", min=0, help="Default: 0.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Model and plan -> a smaller or faster model.

    Methods come from pruning, quantization, sharing, decomposition and vocabulary trimming.
    After each step the ledger says parameters, bytes, latency and, where a task or text is named, the score.
    What stock transformers does not load, affinage.load_model and every verb here do.

    An interrupted run resumes after its last whole step when the same command is given again.

    With --budget, plans are searched (needs the extra [search]): many looked at without training, the best of them
    recovered, timed beside MODEL and scored on the valid part. Costs in x (of MODEL's), ms, MB; loss in pt or %.

    \b
    affinage compress runs/sentiment --with int8 --out runs/int8
    affinage compress runs/sentiment --with trim-vocabulary --with int8 --task sentiment --data reviews/ --out runs/s
    affinage compress runs/sentiment --with prune-heads:keep=0.5 --recover 300 --task sentiment --data r/ --out runs/h
    affinage compress runs/sentiment --plan plan.yaml --task sentiment --data reviews/ --out runs/small
    affinage compress runs/sentiment --budget "latency<=0.5x, drop<=1pt" --task sentiment --data reviews/ --out runs/s
    """
    from affinage.compression.plan import Plan, step_of
    from affinage.recipe import parse_overrides
    from affinage.workflows.compress import compress as run

    if sum((plan is not None, bool(steps), budget is not None)) != 1:
        raise InputError(
            "say what to do, once: steps with --with NAME, a file with --plan FILE, or a search with --budget LIMITS"
        )
    asked: dict[str, Any] = {
        "recover": recover,
        "recipe": recipe,
        "most_lost": most_lost,
        "calibration": calibration,
        "seed": seed,
        "settings": {key: _value(key, value) for key, value in parse_overrides(settings or ()).items()} or None,
    }
    training = [name for name, value in (("--recipe", recipe), ("--set", settings)) if value]
    if training and not (task or data or corpus):
        raise InputError(
            f"{' and '.join(training)}: of recovery, and there is nothing to train on; name a task and its rows with "
            "--task and --data, or text with --corpus, or leave it out"
        )
    if columns and data is None:
        raise InputError("--column: of a task's rows, and there are none; give --task and --data too, or leave it out")
    search = {"tries": tries, "finalists": finalists}
    changes = {key: value for key, value in asked.items() if value is not None}
    given: dict[str, Any] = {
        "out": out,
        "task": task,
        "data": data,
        "corpus": corpus or (),
        "columns": columns_of(columns),
        "teacher": teacher,
        "overwrite": overwrite,
        "quiet": quiet,
        "command": ctx.obj,
    }
    if budget is not None:
        from affinage.compression.budget import Budget
        from affinage.compression.search import Effort
        from affinage.workflows.compress_search import compress_to_budget

        if most_lost is not None:
            raise InputError('--most-lost is of a plan\'s steps; with a budget say it there: "…, drop<=1pt"')
        limits = Budget.parse(budget)
        base = Plan.of({"steps": ["int8"], "recover": 300, **changes}, where="the options")
        effort = Effort(**{key: value for key, value in search.items() if value is not None})
        report = compress_to_budget(model, budget=limits, base=base, effort=effort, storage=storage, **given)
        show_report(report, as_json=as_json, out=out, quiet=quiet)
        return
    if alone := [f"--{key}" for key, value in {**search, "storage": storage}.items() if value is not None]:
        raise InputError(f"{', '.join(alone)}: of a search, which takes --budget; leave it out, or give a budget")
    if plan is not None:
        whole = Plan.load(plan, changes)
    else:
        whole = Plan.of({"steps": [step_of(text) for text in steps or ()], **changes}, where="the options")
    report = run(model, plan=whole, **given)
    show_report(report, as_json=as_json, out=out, quiet=quiet)


def _value(key: str, text: str) -> Any:
    """Of a setting. Raises: InputError where it is no YAML."""
    from yaml import YAMLError

    from affinage.strict_yaml import scalar

    try:
        return scalar(text)
    except YAMLError:
        raise InputError(f"--set {legible(key)}: the value '{legible(text)}' is not valid YAML") from None
