"""The tree's rules: imports point down, files stay small, and light parts import without torch."""

import ast
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import affinage

ROOT = Path(affinage.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
RANKS = {
    **{"__main__": 7, "cli": 6, "workflows": 5},
    **dict.fromkeys(("distillation", "compression", "evaluation", "runtime"), 4),
    "training": 3,
    **dict.fromkeys(("models", "data", "losses", "decoding", "report"), 2),
    **dict.fromkeys(("signals", "recipe", "registry", "recipes", "assets"), 1),
    **{"strict_yaml": 0.5, "errors": 0, "__init__": 0},
}
VAGUE = {"base_utils", "common", "helper", "helpers", "misc", "tools", "util", "utils"}
WARN, FAIL = 300, 400
LIGHT = (
    "affinage",
    "affinage.__init__",
    "affinage.errors",
    "affinage.registry",
    "affinage.recipe",
    "affinage.data.task",
    "affinage.data.readers",
    "affinage.data.encoding",
    "affinage.decoding.labels",
    "affinage.decoding.entities",
    "affinage.decoding.spans",
    "affinage.decoding.zero_shot",
    "affinage.decoding.fill_mask",
    "affinage.runtime.predictor",
    "affinage.runtime.load",
    "affinage.runtime.stock.load",
    "affinage.runtime.onnx.session",
    "affinage.workflows.predict",
    "affinage.workflows.serve",
    "affinage.runtime.server.run",
    "affinage.report.report",
    "affinage.report.provenance",
    "affinage.report.card",
    "affinage.cli.app",
)


def part_of(module: str) -> str:
    """`affinage.data.task` -> `data`; the package itself -> `__init__`."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(source: str, names: set[str]) -> Iterator[str]:
    """Modules of affinage that a file imports, those inside functions and under TYPE_CHECKING included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import"
            # `from affinage import x`: x is a part of the package, or a name that its __init__ holds
            inside = [f"affinage.{a.name}" for a in node.names if a.name in names] if node.module == "affinage" else []
            found = inside or [node.module or ""]
        else:
            continue
        yield from (name for name in found if name.split(".")[0] == "affinage")


def wrong_imports(part: str, source: str) -> list[str]:
    """Imports of a file in `part` that do not point down."""
    theirs = {part_of(module): module for module in imports(source, set(RANKS))}
    return [module for other, module in theirs.items() if other != part and RANKS[other] >= RANKS[part]]


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(file: Path) -> None:
    part = file.relative_to(ROOT).parts[0].removesuffix(".py")
    assert part in RANKS, f"'{part}' has no rank: give it one here and in the architecture"
    assert not wrong_imports(part, file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("errors", "from affinage.recipe import Recipe"),
        ("losses", "from affinage.models.encoder import forward_masked_lm"),
        ("evaluation", "def f():\n    import affinage.runtime.predictor"),
        ("training", "from affinage import workflows"),
    ],
)
def test_an_import_that_points_up_or_sideways_is_seen(part: str, source: str) -> None:
    assert wrong_imports(part, source)


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_small_and_say_what_they_are(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    assert lines <= FAIL, f"{lines} lines: split it"
    if lines > WARN:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn(f"{file.relative_to(ROOT)} has {lines} lines", stacklevel=1)
    assert file.stem not in VAGUE
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "the first line says which question the file answers"


def test_light_parts_need_neither_torch_nor_transformers() -> None:
    code = f"import sys, importlib\nfor name in {LIGHT!r}: importlib.import_module(name)\n"
    code += "print([m for m in ('torch', 'transformers', 'datasets', 'accelerate') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_package_is_typed_and_names_what_it_offers() -> None:
    assert (ROOT / "py.typed").is_file()
    for name in affinage.__all__:
        assert getattr(affinage, name) is not None
