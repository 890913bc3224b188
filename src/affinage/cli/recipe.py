"""`affinage recipe list|show|copy|check`: the declared runs that come with affinage, and one's own."""

import json
from pathlib import Path
from typing import Annotated

import typer

from affinage.cli.console import write, write_table
from affinage.cli.options import Json, Overwrite, Settings
from affinage.errors import InputError
from affinage.recipe import Recipe, packaged_recipes, parse_overrides, recipe_text

app = typer.Typer(rich_markup_mode=None, help="Recipes: list, show, copy, check.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="See: affinage recipe list.", show_default=False)]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Recipes that come with affinage.

    \b
    affinage recipe list
    """
    found = [(name, Recipe.load(name)) for name in packaged_recipes()]
    if as_json:
        keys = ("kind", "source", "description")
        entries = [{"name": name, **{key: getattr(recipe, key) for key in keys}} for name, recipe in found]
        write(json.dumps(entries, ensure_ascii=False, indent=1))
    else:
        rows = [(name, recipe.kind, recipe.description, recipe.source) for name, recipe in found]
        write_table(("recipe", "for", "what it is", "source"), rows)


@app.command()
def show(name: Name) -> None:
    """A recipe's YAML.

    \b
    affinage recipe show distilcamembert
    """
    write(recipe_text(name))


@app.command()
def copy(
    name: Name,
    to: Annotated[Path | None, typer.Argument(metavar="FILE", help="Default: NAME.yaml here.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Copy a recipe, to change it.

    \b
    affinage recipe copy distilcamembert mine.yaml
    affinage distil runs/teacher --corpus corpus/ --recipe mine.yaml --out runs/student
    """
    text = recipe_text(name)
    path = Path(f"{name}.yaml") if to is None else to / f"{name}.yaml" if to.is_dir() else to
    if path.suffix not in {".yaml", ".yml"}:
        raise InputError(f"'{path}': a recipe file ends in .yaml")
    if not path.parent.is_dir():
        raise InputError(f"'{path}': there is no folder '{path.parent}'")
    try:
        with path.open("w" if overwrite else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise InputError(f"'{path}' exists; name another file, or replace it with --overwrite") from None
    write(str(path))


@app.command()
def check(
    recipe: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A recipe file, or a packaged recipe.")],
    settings: Settings = None,
) -> None:
    """Check a recipe before a run.

    Its form, and that every loss, parameter and task in it exists.

    \b
    affinage recipe check mine.yaml
    """
    plan = Recipe.load(recipe, parse_overrides(settings or ()))
    if plan.task is not None:
        from affinage.data.task import load_task

        load_task(plan.task)
    if plan.kind == "finetune":
        for stage in plan.stages:
            if stage.losses:
                raise InputError(
                    f"recipe '{recipe}': stage '{stage.name}' names losses, which fine-tuning does not use"
                )
    else:
        from affinage.distillation.objective import build_losses

        problems = []
        for stage in plan.stages:
            try:
                build_losses(stage.losses, teacher=plan.kind == "distil", on=stage.on)
            except InputError as error:
                problems.append(f"stage '{stage.name}': {error}")
        if problems:
            raise InputError(f"recipe '{recipe}':\n  " + "\n  ".join(problems))
    write(f"{recipe}: a valid recipe to {plan.kind}, sha256 {plan.sha256[:12]}")
