"""In which forms a model's weights stand, told from the model alone: nothing of a stock one, what a method leaves."""

import pytest

from affinage.compression.base import compressors
from affinage.compression.forms import forms_of
from affinage.models.structure import structure_of
from applied import once
from tiny import FAMILIES, tiny_model


@pytest.mark.parametrize("head", ["mlm", "sequence"])
@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_stock_model_has_none(architecture: str, head: str) -> None:
    assert forms_of(tiny_model(architecture, head)) == {}


@pytest.mark.parametrize("name", [entry.name for entry in compressors.entries()])
def test_a_method_leaves_no_form_that_it_does_not_name(name: str) -> None:
    """A table of codes is shared letters or small blocks: one module, and whoever takes one takes both."""
    _, made, _ = once(name, "bert", "sequence")
    leaves = compressors.build(name).traits.leaves
    assert forms_of(made).keys() <= leaves | ({"shared"} if leaves == {"factored", "packed-table"} else set())


def test_whoever_takes_blocks_takes_shared_letters() -> None:
    for entry in compressors.entries():
        takes = entry.component.traits.takes
        assert "shared" in takes or not {"factored", "packed-table"} <= takes


def test_layers_of_another_width_are_uneven_where_they_are_unlike() -> None:
    """FlauBERT's config has no entry for the width of its feed-forward networks: no cut one is stock."""
    evenly, anyhow = (once(name, "flaubert", "sequence")[1] for name in ("prune-neurons-evenly", "prune-neurons"))
    assert not structure_of(evenly).empty and forms_of(evenly) == {}
    assert forms_of(anyhow).keys() == {"uneven"}
