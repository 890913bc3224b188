"""The models of the package affinage-models: `shipped:teacher`, `shipped:student`, wherever a model is asked for."""

from importlib.util import find_spec
from pathlib import Path

from affinage.errors import InputError, unknown

PREFIX = "shipped:"


def shipped_models() -> list[str]:
    """Their names, sorted; none where the package is not installed."""
    root = _root()
    return [] if root is None else sorted(PREFIX + p.name for p in root.iterdir() if (p / "config.json").is_file())


def located(name: str | Path) -> str:
    """The folder of a shipped model; any other name is returned as it is.

    Raises: InputError with the nearest name where there is no such shipped model, and where their package is missing.
    """
    text = str(name)
    if not text.startswith(PREFIX):
        return text
    root = _root()
    if root is None:
        raise InputError(
            f"'{text}': the models that come with affinage are a package of their own, which is not installed; "
            "pip install affinage-models (in a clone: pip install ./models), or name another model"
        )
    if text not in shipped_models():
        raise InputError(unknown("shipped model", text, shipped_models()))
    return str(root / text.removeprefix(PREFIX))


def _root() -> Path | None:
    """The folder of the package; it has nothing but models, so none of its code is run."""
    found = find_spec("affinage_models")
    return None if found is None or found.origin is None else Path(found.origin).parent
