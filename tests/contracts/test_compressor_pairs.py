"""Which methods follow which: what traits say is so, for a sample of pairs, and for all of them among slow tests."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from affinage.compression.base import ReplacesParts, compressors, may_follow
from affinage.compression.plan import Plan, step_of
from affinage.errors import InputError
from affinage.models.checkpoint import load_model
from affinage.models.storage import save_model
from applied import NAMES, batches, begun, logits, resources, trained_and_finished
from tiny import tiny_model, tiny_tokenizer

METHODS = {name: compressors.build(name) for name in NAMES}
PAIRS = [(first, then) for first in NAMES for then in NAMES]
UNTRUE: dict[tuple[str, str], str] = {}
"""pairs that a plan lets pass, and of which the second is refused when it is applied -> why that cannot be declared"""


def plan_of(first: str, then: str) -> Plan:
    steps: list[dict[str, Any]] = [
        {"method": name, "recover": 1 if hasattr(METHODS[name], "prepare") else None} for name in (first, then)
    ]
    return Plan.of({"steps": steps})


def takes(first: str, then: str) -> bool:
    """By the forms alone in which the first leaves weights."""
    return may_follow(METHODS[first].traits, METHODS[then].traits)


def declared(first: str, then: str) -> bool:
    one, other = METHODS[first], METHODS[then]
    twice = isinstance(one, ReplacesParts) and isinstance(other, ReplacesParts) and other.works_on <= one.uses_up
    return takes(first, then) and not twice


COMPOSED = [pair for pair in PAIRS if declared(*pair)]
SAMPLE = sorted(random.Random(6).sample([pair for pair in COMPOSED if pair[0] != pair[1]], 9))


@pytest.mark.parametrize(("first", "then"), SAMPLE)
def test_a_pair_does_what_its_traits_say(first: str, then: str, tmp_path: Path) -> None:
    check(first, then, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), COMPOSED)
def test_every_pair_does(first: str, then: str, tmp_path: Path) -> None:
    check(first, then, tmp_path)


def check(first: str, then: str, folder: Path) -> None:
    """Both are applied, one after the other, and what comes of it runs and is stored and loaded as it is."""
    plan_of(first, then).checked()
    # So many heads that a quarter of them is still one of each layer.
    model = tiny_model("bert", "sequence", hidden_size=32, num_attention_heads=8)
    tokenizer = tiny_tokenizer("bert")
    for name in (first, then):
        method = METHODS[name]
        given = resources("bert", "sequence", method.needs)
        if given.calibration is not None:
            largest = len(tokenizer) - 1
            kept = [replace(b, input_ids=b.input_ids.clamp(max=largest)) for b in given.calibration]
            given = replace(given, calibration=kept)
        try:
            prepared, tokenizer = begun(method, model, tokenizer, given)
        except InputError as error:
            if name == first or (first, then) not in UNTRUE:
                pytest.fail(f"'{first}' lets '{then}' follow: {error}")
            return
        model = trained_and_finished(method, prepared, "bert", "sequence")
    assert (first, then) not in UNTRUE
    batch = batches("bert", "sequence")[0]
    if len(tokenizer) != len(tiny_tokenizer("bert")):
        batch = type(batch)(batch.input_ids.clamp(max=len(tokenizer) - 1), batch.mask)
    with torch.no_grad():
        said = logits(model, batch)
    assert bool(said.isfinite().all())
    save_model(model, folder)
    tokenizer.save_pretrained(folder)
    with torch.no_grad():
        assert torch.equal(logits(load_model(folder), batch), said)


def test_a_plan_refuses_every_wrong_order_and_names_the_one_that_works() -> None:
    wrong = [pair for pair in PAIRS if not takes(*pair)]
    assert len(wrong) > 1000
    for first, then in wrong:
        cure = f"put '{then}' before '{first}'" if takes(then, first) else "leave one of the two"
        with pytest.raises(InputError) as refused:
            plan_of(first, then).checked()
        assert f"'{then}', cannot come after step 1, '{first}'" in str(refused.value)
        assert cure in str(refused.value), (first, then)


def test_a_plan_refuses_what_would_find_nothing_whole() -> None:
    twice = [pair for pair in PAIRS if takes(*pair) and not declared(*pair)]
    assert ("svd", "kronecker") in twice and ("quotient-remainder", "west") in twice
    assert ("sensitivity-svd", "svd") not in twice  # which leaves whole what the loss feels most
    for first, then in twice:
        with pytest.raises(InputError, match=rf"'{then}', cannot come after step 1, '{first}', which leaves nothing"):
            plan_of(first, then).checked()


@pytest.mark.parametrize(
    ("steps", "goes"),
    [
        (["svd:parts=attention", "kronecker:parts=feed-forward"], True),
        (["svd:parts=linears", "kronecker"], True),
        (["svd:parts=linears", "west"], True),
        (["svd:rank=64", "kronecker"], True),
        (["svd:allot=energy", "kronecker"], True),
        (["tensor-train:rank=8", "svd"], True),
        (["svd:parts=attention", "kronecker:parts=attention"], False),
        (["svd:parts=embeddings", "west"], False),
        (["svd:parts=attention", "svd:parts=feed-forward", "tucker:parts=linears"], False),
    ],
)
def test_parts_say_what_is_left_for_a_second_method(steps: list[str], goes: bool) -> None:
    plan = Plan(steps=tuple(map(step_of, steps)))
    if goes:
        assert len(plan.checked()) == len(steps)
        return
    with pytest.raises(InputError, match="leaves nothing whole of what"):
        plan.checked()
