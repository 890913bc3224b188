"""`affinage plan` on the command line: figures worked out by hand, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from affinage.cli.app import run
from tiny import save_tiny

MACHINE = ("--hardware", "flops=300e12,memory=80GB,devices=8")


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_distilcamembert_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    """637,827,072 operations a token (tests/golden/test_plan.py), 33 billion tokens, 8 devices of 300e12 at 40 %."""
    found = planned(capsys, "camembert-base", "--tokens", "33B", *MACHINE)
    (on_eight,) = found["estimates"]
    seconds = 637_827_072 * 33e9 / (8 * 300e12 * 0.4)
    assert on_eight["flops_per_token"]["total"] == 637_827_072
    assert on_eight["hours"] == pytest.approx(seconds / 3600)
    assert on_eight["steps"] == round(33e9 / (48 * 128 * 8))
    assert on_eight["precision"] == "bf16"
    assert on_eight["fits"]
    assert (found["student"]["parameters"], found["teacher"]["parameters"]) == (68_128_261, 110_655_493)


def test_a_shape_is_that_of_the_model_it_describes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = str(save_tiny(tmp_path))
    line = ("--tokens", "1M", *MACHINE, "--set", "training.row_length=32")
    of_the_folder = planned(capsys, folder, *line)
    shape = "layers=4,hidden=16,heads=2,intermediate=32,vocab=150,positions=66"
    assert planned(capsys, "--shape", shape, *line) == of_the_folder
    assert of_the_folder["student"]["layers"] == 2


@pytest.mark.parametrize("tokens", ["real", "masked"])
def test_the_recipe_says_where_logits_are_computed(capsys: pytest.CaptureFixture[str], tokens: str) -> None:
    setting = f"losses.0.params.tokens={tokens}"
    found = planned(capsys, "camembert-base", "--tokens", "1B", *MACHINE, "--set", setting)
    share = {"real": 1.0, "masked": 0.15}[tokens]
    assert found["head_share"] == share
    head = found["estimates"][0]["flops_per_token"]["head"]
    assert head == pytest.approx(share * 4 * 2 * 768 * (768 + 32_005))


def test_without_a_loss_that_compares_the_teacher_costs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    line = ("camembert-base", "--tokens", "1B", *MACHINE, "--set", "losses=[{name: mlm}]")
    (found,) = planned(capsys, *line)["estimates"]
    assert found["flops_per_token"]["teacher"] == found["memory"]["teacher"] == 0


def test_pre_training_plans_the_recipe_s_own_model(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, "--recipe", "mini-camembert", "--tokens", "30M", *MACHINE)
    assert found["teacher"] is None
    # 17,153,920 of the shipped teacher, which is of this shape, and its head's dense map, norm and bias
    assert found["student"]["parameters"] == 17_153_920
    assert (
        planned(capsys, "--recipe", "mini-camembert", "--shape", "bert-base", "--tokens", "1B", *MACHINE)["student"][
            "layers"
        ]
        == 12
    )


def test_the_table_names_what_it_assumes(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["plan", "camembert-base", "--tokens", "1B", "--hardware", "v100", "--hardware", "flops=1e12,memory=1GB"]
    assert run(line) == 0
    out = capsys.readouterr().out
    assert "NVIDIA V100 SXM2" in out
    assert "40" in next(row for row in out.splitlines() if "V100" in row and "fp32" in row)
    assert "too little" in next(row for row in out.splitlines() if "own figures" in row and "GB" in row)
    assert "637.8 MFLOP" in out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("--tokens", "1B"), "a distillation needs its teacher"),
        (("camembert-base", "--shape", "bert-base", "--tokens", "1B"), "give TEACHER or --shape, not both"),
        (("camembert-base",), "--tokens"),
        (("camembert-base", "--tokens", "lots"), "--tokens 'lots': expected a number above 0"),
        (("camembert-base", "--tokens", "1B", "--hardware", "a1000"), "Did you mean 'a100'?"),
        (("camembert-base", "--tokens", "1B", "--utilisation", "40"), "--utilisation 40: expected a share"),
        (("--shape", "camembert", "--tokens", "1B"), "unknown shape 'camembert'. Did you mean"),
        (("camembert-base", "--tokens", "1B", "--recipe", "finetune"), "is for finetune"),
        (("camembert-base", "--tokens", "1B", "--set", "student.hidden_size=384"), "student.hidden_size 384 differs"),
        (("camembert-base", "--tokens", "1B", "--set", "student.num_hidden_layers=13"), "exceeds the teacher's 12"),
        (("camembert-base", "--tokens", "1B", "--set", "training.row_length=600"), "exceeds the 514 positions"),
        (
            ("camembert-base", "--tokens", "1B", "--hardware", "t4", "--set", "training.precision=bf16"),
            "NVIDIA T4 does not compute in bfloat16",
        ),
        (("--recipe", "mini-camembert", "--set", "student.tokenizer=null", "--tokens", "1B"), "give --shape"),
        (("./nowhere", "--tokens", "1B"), "model './nowhere'"),
        (("camembert-base", "--tokens", "1B", "--set", "training.max_steps=5"), "as many tokens as --tokens says"),
    ],
)
def test_what_cannot_be_planned(line: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *line]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("error:") == 1
