"""Which methods follow which: what traits say is so, for a sample of pairs, and for all of them among slow tests."""

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from affinage.compression.base import compressors, may_follow
from affinage.compression.plan import Plan
from affinage.errors import InputError
from affinage.models.checkpoint import load_model
from affinage.models.storage import save_model
from applied import NAMES, batches, begun, logits, resources, trained_and_finished
from tiny import tiny_model, tiny_tokenizer

PAIRS = [(first, then) for first in NAMES for then in NAMES]
SAMPLE = sorted(random.Random(6).sample([p for p in PAIRS if p[0] != p[1]], 8)) if len(NAMES) > 3 else PAIRS


def declared(first: str, then: str) -> bool:
    return may_follow(compressors.build(first).traits, compressors.build(then).traits)


@pytest.mark.parametrize(("first", "then"), SAMPLE)
def test_a_pair_does_what_its_traits_say(first: str, then: str, tmp_path: Path) -> None:
    check(first, then, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), PAIRS)
def test_every_pair_does(first: str, then: str, tmp_path: Path) -> None:
    check(first, then, tmp_path)


def check(first: str, then: str, folder: Path) -> None:
    steps = [{"method": name, "recover": 1 if hasattr(compressors.build(name), "prepare") else None}
             for name in (first, then)]  # fmt: skip
    plan = Plan.of({"steps": steps})
    if not declared(first, then):
        with pytest.raises(InputError, match="cannot come after"):
            plan.checked()
        return
    plan.checked()
    model, tokenizer = tiny_model("bert", "sequence"), tiny_tokenizer("bert")
    for name in (first, then):
        method = compressors.build(name)
        try:
            given = resources("bert", "sequence", method.needs)
            if given.calibration is not None:
                largest = len(tokenizer) - 1
                kept = [replace(b, input_ids=b.input_ids.clamp(max=largest)) for b in given.calibration]
                given = replace(given, calibration=kept)
            prepared, tokenizer = begun(method, model, tokenizer, given)
        except InputError as error:
            # A tiny model runs out of what can be cut, and the method says so.
            if name == then and re.search("already|nothing left|nothing to cut|keeps at least|trim first", str(error)):
                return
            raise
        model = trained_and_finished(method, prepared, "bert", "sequence")
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


def test_a_plan_refuses_what_undoes_a_step_and_names_the_order_that_works() -> None:
    wrong = [(first, then) for first, then in PAIRS if not declared(first, then) and declared(then, first)]
    assert wrong
    for first, then in wrong[:20]:
        steps = [{"method": name, "recover": 1 if hasattr(compressors.build(name), "prepare") else None}
                 for name in (first, then)]  # fmt: skip
        with pytest.raises(InputError, match=f"put '{then}' before '{first}'"):
            Plan.of({"steps": steps}).checked()
