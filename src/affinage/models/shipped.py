"""The models that come with affinage: `shipped:teacher`, `shipped:student`, wherever a model is asked for."""

from importlib import resources
from pathlib import Path

from affinage.errors import InputError, unknown

PREFIX = "shipped:"


def shipped_models() -> list[str]:
    """Their names, sorted."""
    root = _root()
    return sorted(PREFIX + p.name for p in root.iterdir() if (p / "config.json").is_file()) if root.is_dir() else []


def located(name: str | Path) -> str:
    """The folder of a shipped model; any other name is returned as it is.

    Raises: InputError with the nearest name where there is no such shipped model.
    """
    text = str(name)
    if not text.startswith(PREFIX):
        return text
    if text not in shipped_models():
        raise InputError(unknown("shipped model", text, shipped_models()))
    return str(_root() / text.removeprefix(PREFIX))


def _root() -> Path:
    return Path(str(resources.files("affinage.assets"))) / "models"
