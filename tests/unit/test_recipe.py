"""Recipes read back what they write, take overrides, and name every mistake at once."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from affinage.data.task import load_task, task_names
from affinage.distillation.objective import build_losses
from affinage.errors import InputError
from affinage.recipe import Recipe, packaged_recipes, parse_overrides, recipe_text

every_recipe = pytest.mark.parametrize("name", packaged_recipes())
GOOD: dict[str, Any] = {"name": "mine", "source": "original", "kind": "distil", "stages": [{"name": "one"}]}


def written(folder: Path, content: dict[str, Any] | str | bytes, name: str = "mine.yaml") -> Path:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def refused(source: str | Path, overrides: dict[str, str] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        Recipe.load(source, overrides)
    assert str(source) in str(caught.value)
    return str(caught.value)


def test_the_recipes_of_the_main_road_are_there() -> None:
    assert {"distilcamembert", "distilcamembert-as-printed", "finetune", "mini-camembert"} <= set(packaged_recipes())


@every_recipe
def test_a_packaged_recipe_loads_and_its_losses_exist(name: str) -> None:
    recipe = Recipe.load(name)
    assert recipe.name == name and recipe.source and recipe.description
    for stage in recipe.stages:
        if recipe.kind != "finetune":
            build_losses(stage.losses, teacher=recipe.kind == "distil", on=stage.on)


@every_recipe
def test_yaml_round_trip(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name, {"training.learning_rate": "1e-4"})
    again = Recipe.load(written(tmp_path, recipe.to_yaml()))
    assert again == recipe and again.sha256 == recipe.sha256
    assert Recipe.load(written(tmp_path, recipe_text(name))) == Recipe.load(name)


def test_the_objective_is_the_papers() -> None:
    def losses(name: str) -> list[tuple[Any, ...]]:
        return [(c.name, c.weight, c.params) for c in Recipe.load(name).stages[0].losses]

    assert losses("distilcamembert") == [
        ("soft_kl", 0.5, {"temperature": 2.0}),
        ("cosine_distance", 0.3, {}),
        ("mlm", 0.2, {}),
    ]
    for name in ("distilbert", "distilroberta"):
        assert losses(name) == [("soft_kl", 5.0, {"temperature": 2.0}), ("mlm", 2.0, {}), ("cosine_distance", 1.0, {})]
        assert Recipe.load(name).stages[0].masking.smoothing == 0.7
    assert losses("distilcamembert-as-printed") == [
        ("reverse_soft_kl", 0.5, {"temperature": 1.0}),
        ("cosine_similarity", 0.3, {}),
        ("mlm", 0.2, {}),
    ]


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(GOOD)
    # Written down: an interrupted run is found again by it, also by the next version of affinage.
    assert recipe.sha256 == "085489765ca1e1b9e62385331d42566c66d6d3bc0023d07efbb254b6f0f32e21"
    reordered = Recipe.load(written(tmp_path, {key: GOOD[key] for key in reversed(GOOD)}))
    explicit = Recipe.load(written(tmp_path, {**GOOD, "teachers": [], "task": None}))
    assert recipe.sha256 == reordered.sha256 == explicit.sha256
    assert Recipe.model_validate({**GOOD, "task": "ner"}).sha256 != recipe.sha256


@pytest.mark.parametrize(
    ("key", "text", "read"),
    [
        ("student.num_hidden_layers", "3", lambda r: r.student.num_hidden_layers == 3),
        ("student.layers", "[5, 0]", lambda r: r.student.layers == (5, 0)),
        ("student.layers", "odd", lambda r: r.student.layers == "odd"),
        ("stages.0.training.epochs", "0.5", lambda r: r.stages[0].training.epochs == 0.5),
        ("training.learning_rate", "1e-4", lambda r: r.stages[0].training.learning_rate == 1e-4),
        ("training.max_steps", "null", lambda r: r.stages[0].training.max_steps is None),
        ("masking.whole_words", "true", lambda r: r.stages[0].masking.whole_words is True),
        ("guards.no_progress", "off", lambda r: r.stages[0].guards.no_progress == "off"),
        ("guards.bad_teacher", "warn", lambda r: r.stages[0].guards.bad_teacher == "warn"),
        ("held_out", "0.1", lambda r: r.stages[0].held_out == 0.1),
        ("losses.0.params.temperature", "4", lambda r: r.stages[0].losses[0].params["temperature"] == 4),
        ("stages.0.losses.2.weight", "0", lambda r: r.stages[0].losses[2].weight == 0),
        ("name", "other", lambda r: r.name == "other" and r.stages[0].name == "general_distillation"),
    ],
)
def test_overrides(key: str, text: str, read: Any) -> None:
    assert read(Recipe.load("distilcamembert", {key: text}))


def test_an_override_of_a_stages_key_reaches_every_stage(tmp_path: Path) -> None:
    path = written(tmp_path, {**GOOD, "stages": [{"name": "one"}, {"name": "two"}]})
    recipe = Recipe.load(path, {"training.seed": "7"})
    assert [stage.training.seed for stage in recipe.stages] == [7, 7]


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        (
            "training.learning_rat",
            "1",
            "stages.0.training.learning_rat: unknown key 'learning_rat'. Did you mean 'learning_rate'?",
        ),
        (
            "student.num_hidden_layer",
            "6",
            "student.num_hidden_layer: unknown key 'num_hidden_layer'. Did you mean 'num_hidden_layers'?",
        ),
        ("trainings.seed", "1", "unknown key 'trainings'"),
        ("student.tokenizer.size", "1", "unknown key 'size'. Known: training_bytes, vocab_size"),
        ("stages.1.training.seed", "1", "'1' must be an index below 1"),
        ("stages.².name", "x", "'²' must be an index below 1"),
        ("losses.first.weight", "1", "'first' must be an index below 3"),
        ("name.x", "1", "'name' holds a value, not keys"),
        ("training.epochs", "-1", "stages.0.training.epochs: input should be greater than 0 (got -1)"),
        ("training.epochs", "many", "stages.0.training.epochs: input should be a valid number"),
        ("training.precision", "fp8", "input should be 'auto', 'fp32' or 'bf16' (got 'fp8')"),
        ("masking.probability", "1.5", "less than or equal to 1"),
        ("masking.random", "0.5", "mask 0.8 and random 0.5 are shares of the same tokens"),
        ("guards.bad_teacher", "skip", "guards.bad_teacher: input should be 'warn', 'stop' or 'off' (got 'skip')"),
        ("guards.non_finite", "off", "guards.non_finite: input should be 'skip' or 'stop' (got False)"),
        (
            "training.learning_rate",
            ".inf",
            "stages.0.training.learning_rate: input should be a finite number (got inf)",
        ),
        ("training.seed", "4294967296", "training.seed: input should be less than 4294967296"),
        ("name", "[", "name: the value '[' is not valid YAML"),
        ("training.seed", "2024-13-45", "training.seed: the value '2024-13-45' is not valid YAML"),
        ("stages", "[]", "stages: "),
    ],
)
def test_a_wrong_override_is_named(key: str, text: str, message: str) -> None:
    assert message in refused("distilcamembert", {key: text})


def test_a_misspelt_recipe_names_the_nearest() -> None:
    assert refused("distilcamenbert").endswith(
        "Did you mean 'distilcamembert'? Known: " + ", ".join(packaged_recipes())
    )


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    broken = {"name": "mine", "knd": "distil", "stages": [{"name": "one", "held_out": 2, "training": {"epoch": 1}}]}
    message = refused(written(tmp_path, broken), {"student.layer": "odd", "stages.7.name": "x"})
    for part in (
        "stages.7.name: '7' must be an index below 1",
        "source: field required",
        "kind: field required",
        "knd: unknown key 'knd'. Did you mean 'kind'?",
        "stages.0.held_out: input should be less than 1 (got 2)",
        "stages.0.training.epoch: unknown key 'epoch'. Did you mean 'epochs'?",
        "student.layer: unknown key 'layer'. Did you mean 'layers'?",
    ):
        assert part in message
    assert message.count("\n") == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected keys such as name, stages; got NoneType"),
        (b"- a\n- b\n", "got list"),
        (b"name: [", "is not valid YAML"),
        (b"name: 2024-13-45", "is not valid YAML"),
        (b"\x00\x01\x02", "is not valid YAML"),
        (b"\x89PNG\r\n\xff\xfe", "cannot be read"),
        ("name: été".encode("latin-1"), "cannot be read"),
        (b"#" * 100_001, "more than 100,000 bytes"),
        (b"[" * 500, "is not valid YAML"),
        (b"name: !!python/object/apply:os.system ['true']", "is not valid YAML"),
        (b"1: 2\n", "name: field required"),
    ],
)
def test_what_is_no_recipe_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    assert message in refused(written(tmp_path, content))


def test_a_recipe_that_unfolds_without_end_is_refused_quickly(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    message = refused(written(tmp_path, "\n".join([*lines, "name: *a11"])))
    assert message.endswith("line 5, column 5: more than 10,000 keys and values")


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    assert f"does not exist; packaged recipes: {', '.join(packaged_recipes())}" in refused(tmp_path / "none.yaml")
    (tmp_path / "folder.yaml").mkdir()
    assert "is no file" in refused(tmp_path / "folder.yaml")


def test_settings_of_the_command_line() -> None:
    assert parse_overrides(["a.b=1", " c = d=e "]) == {"a.b": "1", "c": "d=e"}
    for wrong in ("a.b", "=1", "  =1"):
        with pytest.raises(InputError, match="expected key=value"):
            parse_overrides([wrong])


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_setting_ends_in_anything_but_a_recipe_or_an_input_error(key: str, value: str) -> None:
    with suppress(InputError):
        Recipe.load("distilcamembert", {key: value})


def test_every_task_loads_and_a_misspelt_one_names_the_nearest() -> None:
    assert {"sentiment", "ner", "nli", "qa"} <= set(task_names())
    assert all(load_task(name).name == name for name in task_names())
    with pytest.raises(InputError, match="Did you mean 'sentiment'"):
        load_task("sentimant")
