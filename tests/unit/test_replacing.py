"""Linear maps and tables are found in every family, and others can stand in their place."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from affinage.errors import InputError
from affinage.models.layout import depth_of, layers_of, layout_of
from affinage.models.modules.tied import TiedProjection
from affinage.models.replacing import is_tied, linears, replace_embedding_, replace_module_, word_embedding_path
from compressed_kinds import Halves, halves
from tiny import FAMILIES, tiny_model

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.mark.parametrize("architecture", [*FAMILIES, "mobilebert"])
@pytest.mark.parametrize("head", ["mlm", "sequence"])
def test_a_table_of_another_form_changes_nothing_and_the_projection_follows(architecture: str, head: str) -> None:
    model = tiny_model(architecture, head)
    before = model(IDS).logits
    tied = is_tied(model)
    assert tied == (head == "mlm" and architecture != "eurobert")  # whose projection has weights of its own
    table = model.get_submodule(word_embedding_path(model))
    assert isinstance(table, nn.Embedding)
    replace_embedding_(model, halves(table))
    assert is_tied(model) == tied
    torch.testing.assert_close(model(IDS).logits, before)
    if tied:  # one table, counted once, trained through both of its uses
        assert isinstance(model.get_submodule(layout_of(model.config).decoder), TiedProjection)
        assert not any(p is table.weight for p in model.parameters())
        new = model.get_submodule(word_embedding_path(model))
        assert isinstance(new, Halves) and sum(p is new.left for p in model.parameters()) == 1
        copied = deepcopy(model)
        assert is_tied(copied)
        replace_embedding_(copied, table)
        assert is_tied(copied)
        torch.testing.assert_close(copied(IDS).logits, before)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_the_linear_maps_of_the_layers_are_named_in_order(architecture: str) -> None:
    model = tiny_model(architecture, "sequence")
    paths = linears(model)
    layout = layout_of(model.config)
    expected = sum(
        isinstance(m, nn.Linear)
        for path in (layout.layers, *layout.more_layers)
        for m in model.get_submodule(path).modules()
    )
    assert len(paths) == len(set(paths)) == expected >= 4 * (1 if layout.shares_layers else depth_of(model.config))
    numbers = [int(next(part for part in path.split(".") if part.isdigit())) for path in paths]
    assert numbers == sorted(numbers)
    names = {id(module): path for path, module in model.named_modules()}
    assert names[id(layers_of(model)[0].get_submodule(layout.query))] in paths
    before = model(IDS).logits
    for path in paths:
        replace_module_(model, path, deepcopy(model.get_submodule(path)))
    torch.testing.assert_close(model(IDS).logits, before)


def test_a_map_in_several_places_is_named_once_and_replaced_everywhere() -> None:
    model = tiny_model("bert", "sequence")
    layers = model.get_submodule("bert.encoder.layer")
    assert isinstance(layers, nn.ModuleList)
    layers[2] = layers[0]
    assert len(linears(model)) == 3 * 6
    new = nn.Linear(16, 16)
    replace_module_(model, "bert.encoder.layer.0.attention.self.query", new)
    assert model.get_submodule("bert.encoder.layer.2.attention.self.query") is new
    assert not new.training


def test_the_head_that_reads_the_table_itself_is_refused() -> None:
    model = tiny_model("deberta-v2", legacy=False)
    table = model.get_submodule(word_embedding_path(model))
    assert isinstance(table, nn.Embedding)
    with pytest.raises(InputError, match="reads the embedding table itself"):
        replace_embedding_(model, halves(table))
    task = tiny_model("deberta-v2", "sequence", legacy=False)
    replace_embedding_(task, halves(table))
