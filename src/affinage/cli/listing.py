"""`affinage list losses|compressors|tasks|models`: what a recipe or an option may name."""

import json
from dataclasses import fields
from typing import Any

import typer

from affinage.cli.console import write, write_table
from affinage.cli.options import Json

app = typer.Typer(rich_markup_mode=None, help="List what can be named: losses, compressors, tasks, shipped models.")


@app.command()
def losses(as_json: Json = False) -> None:
    """What a recipe can name, and its sources.

    \b
    affinage list losses
    """
    import affinage.losses  # noqa: F401  (registers every loss)
    from affinage.losses.base import distillation_losses

    found: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "summary": entry.summary,
            "parameters": _parameters(entry.component),
            "source": entry.source,
        }
        for entry in distillation_losses.entries()
    ]
    if as_json:
        write(json.dumps(found, ensure_ascii=False, indent=1))
        return
    rows = [(f["name"], f["summary"], _shown(f["parameters"]), f["source"]) for f in found]
    write_table(("loss", "what it is", "parameters", "source"), rows)


@app.command()
def compressors(as_json: Json = False) -> None:
    """What `affinage compress` can do, and its sources.

    \b
    affinage list compressors
    """
    import affinage.compression  # noqa: F401  (registers every compressor)
    from affinage.compression.base import compressors as registry

    found: list[dict[str, Any]] = []
    for entry in registry.entries():
        component: Any = entry.component
        found.append(
            {
                "name": entry.name,
                "summary": entry.summary,
                "paradigm": component.traits.paradigm,
                "parameters": _parameters(component),
                "needs": sorted(component.needs),
                "trained": hasattr(component, "on_step"),
                "takes": sorted(component.traits.takes),
                "leaves": sorted(component.traits.leaves),
                "source": entry.source,
            }
        )
    found.sort(key=lambda one: (one["paradigm"], one["name"]))
    if as_json:
        write(json.dumps(found, ensure_ascii=False, indent=1))
        return
    rows = [
        (
            f["name"],
            f["paradigm"],
            f["summary"],
            _shown(f["parameters"]),
            ", ".join([*f["needs"], *(["training"] if f["trained"] else [])]),
            f["source"],
        )
        for f in found
    ]
    write_table(("method", "paradigm", "what it does", "parameters", "needs", "source"), rows)


@app.command()
def tasks(as_json: Json = False) -> None:
    """What a model can be fine-tuned and scored on.

    \b
    affinage list tasks
    """
    from affinage.data.task import load_task, task_names

    found = [load_task(name) for name in task_names()]
    if as_json:
        write(json.dumps([task.model_dump(mode="json") for task in found], ensure_ascii=False, indent=1))
        return
    rows = [(t.name, t.kind, ", ".join(t.columns), ", ".join(t.metrics), t.description) for t in found]
    write_table(("task", "kind", "fields", "metrics", "what it is"), rows)


@app.command()
def models(as_json: Json = False) -> None:
    """The models that come with affinage.

    \b
    affinage list models
    """
    from affinage.models.shipped import located, shipped_models

    found = [{"name": name, "path": located(name)} for name in shipped_models()]
    if as_json:
        write(json.dumps(found, ensure_ascii=False, indent=1))
        return
    write_table(("model", "folder"), [(f["name"], f["path"]) for f in found])


def _shown(parameters: dict[str, Any]) -> str:
    return ", ".join(f"{name}={default}" for name, default in parameters.items())


def _parameters(component: Any) -> dict[str, Any]:
    """Field -> default of a registered dataclass."""
    return {field.name: field.default for field in fields(component)}
