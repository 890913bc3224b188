"""Options that several verbs share."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from affinage.errors import InputError
from affinage.recipe import parse_overrides

Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write; must not exist.")]
Task = Annotated[str, typer.Option("--task", metavar="TASK", help="See: affinage list tasks.")]
Data = Annotated[
    str, typer.Option("--data", metavar="PATH|NAME", help="Folder with train.*, valid.*, test.*; one file; a hub name.")
]
Recipe = Annotated[str, typer.Option("--recipe", metavar="NAME|FILE", help="See: affinage recipe list.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a recipe key, as training.learning_rate=1e-4. Repeatable."
    ),
]
MaxSteps = Annotated[
    int | None, typer.Option("--max-steps", metavar="N", min=1, help="Short for --set training.max_steps=N.")
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", min=0, help="Short for --set training.seed=N.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output folder if it exists.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no log on stderr; errors still show.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Write nothing: check, train ten steps, say what it would take.")
]
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="FIELD=COLUMN", help="Where the data keeps a field, as text=review. Repeatable."),
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Model folder or hub name.", show_default=False)]


def overrides(settings: Iterable[str] | None, *, max_steps: int | None, seed: int | None) -> dict[str, str]:
    """`--set` and its shorthands as recipe overrides. Raises: InputError for a setting without `=`."""
    found = parse_overrides(settings or ())
    for key, value in (("training.max_steps", max_steps), ("training.seed", seed)):
        if value is not None:
            found[key] = str(value)
    return found


def columns_of(settings: Iterable[str] | None) -> dict[str, str]:
    """`--column` as field -> column. Raises: InputError where there is no `=` or a field is given twice."""
    found: dict[str, str] = {}
    for setting in settings or ():
        field, _, column = (part.strip() for part in setting.partition("="))
        if not field or not column:
            raise InputError(f"--column '{setting}': expected field=column, for example text=review")
        if field in found:
            raise InputError(f"--column '{setting}': the field '{field}' is given twice")
        found[field] = column
    return found
