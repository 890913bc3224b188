"""The recipe loader: any bytes give a recipe that survives its own YAML, or one error."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from affinage.errors import InputError
from affinage.recipe import Component, Guards, Masking, Recipe, Stage, StudentSpec, TokenizerSpec, Training

PARTS = (Recipe, Stage, Training, Guards, Masking, StudentSpec, TokenizerSpec, Component)
KEYS = sorted({key for part in PARTS for key in part.model_fields})
VALUES = (
    *(
        "1",
        "-1",
        "0",
        "1e400",
        ".inf",
        ".nan",
        "0x1f",
        "0o7",
        "1_000",
        "1:30",
        "2024-01-01",
        "2024-13-45",
        "yes",
        "off",
    ),
    *("~", "''", '"\\ud800"', '"\\0"', "=", "<<", "*a", "&a x", "!!int ''", "!!timestamp x", "!!bool x", "!!binary x"),
    *("!!set {a}", "!!omap [a: 1]", "!!python/none x", "!x y", "9" * 400, "9" * 5000, "[", "{", "|\n  x", ">-\n  x"),
    *("distil", "spread", "[0, 1]", "[[]]", "{}", "mlm", "😀", "\u2028", "-", "? a", "#", "%YAML 1.1", "---", "..."),
)
scalars = st.sampled_from(VALUES)
keys = st.sampled_from([*KEYS, "x", "1", "<<", "'a b'"])
lines = st.tuples(st.integers(0, 4), st.sampled_from(["", "- "]), keys, scalars).map(
    lambda line: f"{'  ' * line[0]}{line[1]}{line[2]}: {line[3]}"
)
GOOD = "name: mine\nsource: o\nkind: distil\nstages:\n- name: one\n  training:\n    seed: 1\n  losses:\n  - name: mlm\n"
by_lines = st.lists(lines, max_size=12).map(lambda found: GOOD + "\n".join(found))

plain = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.dates() | st.binary(max_size=3)
)
trees = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner),
    max_leaves=10,
)


def part(kind: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Keys of a part of a recipe, with values of which many are wrong."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(kind.model_fields, trees))


stages = st.fixed_dictionaries(
    {"name": st.just("one")},
    optional={
        "training": part(Training),
        "guards": part(Guards),
        "masking": part(Masking),
        "losses": st.lists(part(Component) | st.fixed_dictionaries({"name": st.just("mlm"), "params": trees})),
    },
)
by_trees = st.fixed_dictionaries(
    {
        "name": st.text(max_size=5),
        "source": st.just("o"),
        "kind": st.sampled_from(["distil", "pretrain", "x"]),
        "stages": st.lists(stages, max_size=2) | trees,
    },
    optional={"student": part(StudentSpec), "teachers": trees, "x": trees},
).map(lambda tree: yaml.safe_dump(tree, allow_unicode=True))
anything = (
    st.binary(max_size=100)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | by_lines.map(lambda text: text.encode("utf-8", "surrogatepass"))
    | by_trees.map(str.encode)
)
overridden = st.dictionaries(
    (
        st.lists(st.sampled_from([*KEYS, "0", "1", "²", ""]), min_size=1, max_size=5).map(".".join)
        | st.text(max_size=10)
    ),
    scalars | st.text(max_size=10),
    max_size=3,
)


def check(data: bytes, overrides: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.yaml"
        path.write_bytes(data)
        try:
            recipe = Recipe.load(path, overrides)
        except InputError as error:
            first, *problems = str(error).split("\n")
            assert first.startswith(("recipe '", "recipe file '")) and str(path) in first and len(first) < 1000, first
            assert len(problems) <= 30, problems
            assert all(p.startswith("  ") and p.isprintable() and len(p) < 1000 for p in problems), problems
            return
        path.write_text(recipe.to_yaml(), encoding="utf-8")
        again = Recipe.load(path)
    assert again == recipe and again.sha256 == recipe.sha256


no_limit = settings(deadline=None, suppress_health_check=list(HealthCheck))


def with_value(value: str) -> bytes:
    """A recipe with this value for a number, and among the parameters of a loss."""
    return (GOOD + f"    params: {{a: {value}}}\n  held_out: {value}\n").encode("utf-8", "surrogatepass")


# What was found, by these tests or on the way to them: PyYAML's own errors, and values that no run survives.
FOUND = (
    *((with_value(value), {}) for value in ("!!timestamp x", "!!int ''", "!!float ''", "!!bool x", "!!binary é", "=")),
    *(
        (with_value(value), {})
        for value in ("!!binary /w==", "!!set {a}", "2024-01-01", ".inf", ".nan", "1" + "0" * 400)
    ),
    *((with_value(value), {}) for value in ("9" * 5000, "&a [*a]", "&a {b: *a}", '"\\ud800"', "[" * 500, "{" * 500)),
    (GOOD.encode() + b"name: other\n", {}),
    (GOOD.encode(), {"adam_beta1": "\x1f"}),
    (GOOD.encode(), {"a\x1b[2Jb": "1", "stages.\x1f": "1"}),
    (GOOD.encode(), {"stages." + "9" * 5000: "1"}),
    (GOOD.encode(), {"losses.0.params" + ".a" * 2000: "1"}),
    (GOOD.encode(), {"training.epochs": "1e300", "training.seed": "4294967296"}),
)


def with_examples(test: Callable[..., None]) -> Callable[..., None]:
    for found in FOUND:
        test = example(*found)(test)
    return test


@settings(no_limit, max_examples=150)
@given(anything, overridden)
@with_examples
def test_any_bytes_are_a_recipe_or_one_error(data: bytes, overrides: dict[str, str]) -> None:
    check(data, overrides)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(no_limit, max_examples=3_000)
@given(anything, overridden)
def test_many_bytes_are_a_recipe_or_one_error(data: bytes, overrides: dict[str, str]) -> None:
    check(data, overrides)


def test_what_an_alias_stands_for_is_changed_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("name: a\nsource: o\nkind: distil\nstages:\n- &one {name: one}\n- *one\n", encoding="utf-8")
    recipe = Recipe.load(path, {"stages.1.training.seed": "7"})
    assert [stage.training.seed for stage in recipe.stages] == [0, 7]
