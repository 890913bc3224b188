"""A plan is read strictly, in its long and its short form, from YAML and from the command line."""

from pathlib import Path

import pytest

from affinage.compression.plan import Plan, PlanStep, step_of
from affinage.errors import InputError
from affinage.report.ledger import LedgerEntry, ledger_table


def written(folder: Path, text: str) -> Path:
    path = folder / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_step_reads_as_on_the_command_line() -> None:
    assert step_of("int8") == PlanStep(method="int8")
    assert step_of("x:keep=0.5,evenly=true, layers=[0,2],by=gates") == PlanStep(
        method="x", params={"keep": 0.5, "evenly": True, "layers": [0, 2], "by": "gates"}
    )
    assert step_of("x:rate=1e-4").params == {"rate": 1e-4}
    step = step_of('x:keep=0.5,layers=[0,2],by="a b"')
    assert step_of(step.title) == step and step.title == 'x:keep=0.5,layers=[0, 2],by="a b"'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no method"),
        (":keep=0.5", "names no method"),
        ("x:keep", "expected NAME or NAME:KEY=VALUE"),
        ("x:=3", "expected NAME or NAME:KEY=VALUE"),
        ("x:a={", "is not valid YAML"),
        ("x:keep=0.5,keep=0.3", "'keep' stands there twice"),
        ("svd:keep=nan", "--with 'svd:keep=nan':\n  steps.0.*finite"),
        ("svd:rank=2020-01-01", "steps.0.params.rank"),
        ("svd:rank={1: 2}", "steps.0.params.rank"),
    ],
)
def test_what_is_no_step_is_said(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        step_of(text)


def test_a_plan_takes_a_step_as_the_command_line_has_it(tmp_path: Path) -> None:
    plan = Plan.load(written(tmp_path, "steps: ['x:keep=0.5,layers=[0, 2]', int8]"))
    assert plan.steps == (PlanStep(method="x", params={"keep": 0.5, "layers": [0, 2]}), PlanStep(method="int8"))
    with pytest.raises(InputError, match=r"plan '.*plan.yaml': step 'x:keep': expected NAME or NAME:KEY=VALUE"):
        Plan.load(written(tmp_path, "steps: ['x:keep']"))


def test_the_short_form_says_the_same_as_the_long_one(tmp_path: Path) -> None:
    short = "steps: [int8-embeddings, {prune-heads: {keep: 0.5}, recover: 3, most_lost: 0.2}, int8: {}]\nrecover: 20\n"
    short = short.replace("int8: {}]", "{int8: }]")
    long = """
steps:
- method: int8-embeddings
- {method: prune-heads, params: {keep: 0.5}, recover: 3, most_lost: 0.2}
- {method: int8, params: {}}
recover: 20
"""
    first, second = Plan.load(written(tmp_path, short)), Plan.load(written(tmp_path, long))
    assert first == second and first.sha256 == second.sha256
    assert Plan.load(written(tmp_path, first.to_yaml())) == first
    assert first.title == "int8-embeddings + prune-heads:keep=0.5 + int8"
    assert Plan.load(tmp_path / "plan.yaml", {"recover": 5, "seed": 3}).recover == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: []", "steps: "),
        ("steps: [int8]\nrecovr: 3", "recovr: "),
        ("steps: [int8]\nrecover: -3", "recover: "),
        ("steps: [int8]\nmost_lost: many", "most_lost: "),
        ("steps: [{method: int8, recovr: 3}]", "steps.0.recovr"),
        ("steps: [{int8: {}, int4: {}}]", "steps.0.method"),
        ("steps: [int8]\nsteps: [int4]", "stands there twice"),
        ("- int8", "expected keys such as steps"),
        ("steps: [", "is not valid YAML"),
    ],
)
def test_what_is_no_plan_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        Plan.load(written(tmp_path, text))
    assert said in str(refused.value)


def test_files_that_are_no_plan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Plan.load(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="is no file"):
        Plan.load(tmp_path)
    (tmp_path / "large.yaml").write_bytes(b"#" * 200_000)
    with pytest.raises(InputError, match="that is no plan"):
        Plan.load(tmp_path / "large.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        Plan.load(tmp_path / "bytes.yaml")


def test_recovery_and_limits_are_those_of_the_step_or_of_the_plan() -> None:
    plan = Plan.of(
        {"steps": ["int8-embeddings", "int8", {"method": "int8-embeddings", "recover": 0, "most_lost": 0.5}],
         "recover": 9, "most_lost": 0.1}
    )  # fmt: skip
    built = [step.build() for step in plan.steps]
    assert [plan.recovery_of(i, made) for i, made in enumerate(built)] == [9, 0, 0]
    assert [plan.allowed_loss(i) for i in range(3)] == [0.1, 0.1, 0.5]


def test_every_problem_of_a_plan_is_said_at_once() -> None:
    plan = Plan.of({"steps": ["int9", {"int8": {"per_chanel": True}}]})
    with pytest.raises(InputError) as refused:
        plan.checked()
    assert "step 1: unknown compressor 'int9'" in str(refused.value)
    assert "step 2: compressor 'int8': unknown parameter 'per_chanel'" in str(refused.value)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("prune-n-m:n=4,m=4", "n=4 of m=4 leaves everything"),
        ("prune-gradual:start=0.7", "start=0.7 is to come before end=0.7"),
        ("prune-movement:end=0.05", "start=0.1 is to come before end=0.05"),
        ("drop-layers:layers=[]", "to name layers that stay"),
        ("drop-layers:layers=[0, 0]", "each once"),
        ("share-layers:parts=none", "'all', 'attention' or 'feed-forward'"),
        ("kronecker:terms=4", "at most 3"),
        ("kronecker:terms=2,parts=embeddings", "at most 1"),
        ("svd:rank=3,keep=0.5", "both say the rank"),
        ("int8:encoder=false,embeddings=false,heads=false", "all switched off"),
        ("mixed-bits:encoder=false,heads=false", "both switched off"),
    ],
)
def test_parameters_that_no_model_can_take_are_found_in_the_plan(step: str, said: str) -> None:
    with pytest.raises(InputError, match="step 2: ") as refused:
        Plan(steps=(step_of("trim-vocabulary"), step_of(step)), recover=1).checked()
    assert said in str(refused.value)


def test_the_ledger_is_read_as_a_table() -> None:
    def entry(step: int, size: int, **more: object) -> LedgerEntry:
        values = {"title": "x", "parameters": 10, "latency_ms": None, "score": None, "seconds": 1.0, **more}
        return LedgerEntry(step=step, size_bytes=size, **values)  # type: ignore[arg-type]

    columns, rows = ledger_table([entry(0, 4_000_000, score=0.9), entry(1, 1_000_000, undone=True, recovery_steps=3)])
    assert len(columns) == len(rows[0]) == len(rows[1])
    assert rows[0][3:7] == ("4.00", "1.00×", "", "90.0") and rows[1][3:] == (
        "1.00",
        "4.00×",
        "",
        "",
        "3 steps",
        "undone",
    )


def test_settings_given_beside_a_plan_replace_its_own_one_by_one(tmp_path: Path) -> None:
    path = written(tmp_path, "steps: [int8]\nsettings: {training.learning_rate: 3e-5, training.batch_size: 8}\n")
    found = Plan.load(path, {"settings": {"training.batch_size": 4}, "seed": 3})
    assert found.settings == {"training.learning_rate": "3e-5", "training.batch_size": 4} and found.seed == 3


@pytest.mark.parametrize("steps", ["[3]", "[{svd: {keep: .nan}}]"])
def test_a_step_that_is_none_is_not_said_to_be_missing(tmp_path: Path, steps: str) -> None:
    with pytest.raises(InputError, match=r"steps\.0") as refused:
        Plan.load(written(tmp_path, f"steps: {steps}"))
    assert "at least 1 item" not in str(refused.value)


def test_a_short_step_takes_no_value_but_its_parameters(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="valid dictionary"):
        Plan.load(written(tmp_path, "steps: [{int8: false}]"))


def test_bits_out_of_range_are_said_as_a_sentence() -> None:
    with pytest.raises(InputError, match="step 1: compressor 'k-means': bits are 1 to 8"):
        Plan.of({"steps": ["k-means:bits=9"]}).checked()
