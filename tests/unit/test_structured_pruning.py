"""Heads, neurons and layers taken out of the tensors: the rest computes what it did with these parts closed."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from affinage.compression.base import Resources, compressors
from affinage.compression.pruning.cutting import (
    cut_heads_,
    cut_layers_,
    cut_neurons_,
    head_counts,
    layers_of,
    linear_of,
    neuron_counts,
)
from affinage.compression.pruning.gates import gated
from affinage.errors import InputError
from affinage.models.layout import widths_of
from compressing import WHOLE, batches, built, logits, parameters, resources, sharp_model
from tiny import FAMILIES, tiny_model

HEADS = [torch.tensor([0, 2]), torch.tensor([3]), torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2])]
NEURONS = [torch.arange(0, 32, 2), torch.tensor([5]), torch.arange(32), torch.tensor([0, 31])]

every_whole = pytest.mark.parametrize("architecture", WHOLE)


def closed(kept: list[Tensor], count: int) -> list[Tensor]:
    return [torch.zeros(count).index_fill_(0, part, 1.0) for part in kept]


def outputs(model: PreTrainedModel, architecture: str) -> Tensor:
    with torch.no_grad():
        return torch.cat([logits(model, batch) for batch in batches(architecture, rows=6)])


@every_whole
def test_a_model_without_heads_computes_what_it_does_with_their_gates_closed(architecture: str) -> None:
    model = sharp_model(architecture, num_attention_heads=4, n_heads=4)
    cut, zeroed = deepcopy(model), deepcopy(model)
    cut_heads_(cut, HEADS)
    for layer, kept in zip(layers_of(zeroed), HEADS, strict=True):
        weight = linear_of(zeroed, layer, "attention_output").weight.data.view(16, 4, 4)
        weight[:, [head for head in range(4) if head not in kept]] = 0
    with gated(model, heads=closed(HEADS, 4)):
        expected = outputs(model, architecture)
    assert head_counts(cut) == [2, 1, 4, 2]
    torch.testing.assert_close(outputs(zeroed, architecture), expected)
    torch.testing.assert_close(outputs(cut, architecture), expected)
    assert not torch.allclose(outputs(model, architecture), expected, atol=1e-3)
    assert parameters(model) - parameters(cut) == 7 * (4 * 16 * 4 + 3 * 4)


@every_whole
def test_a_model_without_neurons_computes_what_it_does_with_them_zeroed(architecture: str) -> None:
    model = sharp_model(architecture)
    cut, zeroed = deepcopy(model), deepcopy(model)
    cut_neurons_(cut, NEURONS)
    for layer, kept in zip(layers_of(zeroed), NEURONS, strict=True):
        gone = [neuron for neuron in range(32) if neuron not in kept]
        linear_of(zeroed, layer, "output").weight.data[:, gone] = 0
    with gated(model, neurons=closed(NEURONS, 32)):
        expected = outputs(model, architecture)
    assert neuron_counts(cut) == [16, 1, 32, 2]
    torch.testing.assert_close(outputs(zeroed, architecture), expected)
    torch.testing.assert_close(outputs(cut, architecture), expected)
    assert not torch.allclose(outputs(model, architecture), expected, atol=1e-3)


@every_whole
def test_layers_left_out_are_stepped_over(architecture: str) -> None:
    model = sharp_model(architecture)
    cut = deepcopy(model)
    cut_layers_(cut, [0, 3])
    for layer in layers_of(model)[1:3]:
        layer.register_forward_hook(lambda module, args, out: args[0])
    torch.testing.assert_close(outputs(cut, architecture), outputs(model, architecture), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("architecture", "name"),
    list(zip(WHOLE, ["prune-neurons-evenly", "prune-neurons-onorm", "drop-layers", "search-layers"] * 2, strict=False)),
)
def test_what_is_cut_evenly_loads_in_stock_transformers(architecture: str, name: str, tmp_path: Path) -> None:
    model = sharp_model(architecture)
    pruned = built(name).apply(model, resources(architecture))
    assert parameters(pruned) < parameters(model)
    pruned.save_pretrained(tmp_path)
    stock, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    torch.testing.assert_close(outputs(stock, architecture), outputs(pruned, architecture), rtol=0, atol=0)
    widths = json.loads((tmp_path / "config.json").read_text())
    assert (widths_of(stock.config)["intermediate_size"], len(layers_of(stock))) != (32, 4), widths


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_as_many_stay_as_asked_for_and_one_of_each_layer(architecture: str) -> None:
    model, given = sharp_model(architecture, num_attention_heads=4, n_heads=4), resources(architecture)
    before = deepcopy(model.state_dict())
    for keep, count in ((0.25, 4), (0.5, 8), (0.99, 16)):
        left = head_counts(built("prune-heads", keep=keep).apply(model, given))
        assert (sum(left), min(left) >= 1) == (count, True)
    left = neuron_counts(built("prune-neurons", keep=0.3).apply(model, given))
    assert (sum(left), min(left) >= 1) == (128 - 89, True)
    assert neuron_counts(built("prune-neurons-evenly", keep=0.3).apply(model, given)) == [32 - 22] * 4
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_heads_that_matter_stay() -> None:
    """In every layer the values of two heads are made 20 times larger: the loss feels these."""
    model = sharp_model("bert", num_attention_heads=4)
    with torch.no_grad():
        for layer in layers_of(model):
            linear_of(model, layer, "attention_output").weight.view(16, 4, 4)[:, [0, 2]] *= 1e-3
    pruned = built("prune-heads", keep=0.5).apply(model, resources("bert"))
    whole, left = outputs(model, "bert"), outputs(pruned, "bert")
    assert head_counts(pruned) == [2, 2, 2, 2]
    torch.testing.assert_close(left, whole, atol=0.05, rtol=0.05)


def test_search_leaves_out_what_costs_least() -> None:
    """The score counts how far the output is from the whole model's."""
    model = sharp_model("bert")
    whole = outputs(model, "bert")
    given = replace(resources("bert"), score=lambda pruned: -float((outputs(pruned, "bert") - whole).abs().sum()))
    one_less = []
    for gone in range(4):
        cut = deepcopy(model)
        cut_layers_(cut, [i for i in range(4) if i != gone])
        one_less.append(cut)
    best = max(one_less, key=given.score)  # type: ignore[arg-type]
    found = built("search-layers", keep=3).apply(model, given)
    torch.testing.assert_close(outputs(found, "bert"), outputs(best, "bert"), rtol=0, atol=0)


def test_a_layer_that_does_nothing_contributes_least() -> None:
    model = sharp_model("bert")
    idle = layers_of(model)[2]
    with torch.no_grad():
        for part in ("attention_output", "output"):
            linear_of(model, idle, part).weight.zero_()
            linear_of(model, idle, part).bias.zero_()
    pruned = built("drop-layers-by-contribution", keep=3).apply(model, resources("bert"))
    for place, layer in enumerate([0, 1, 3]):
        kept, theirs = layers_of(pruned)[place].state_dict(), layers_of(model)[layer].state_dict()
        assert all(torch.equal(kept[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("prune-heads", {"keep": 0.1}, "each of the 4 layers keeps at least one: the least is keep=0.5"),
        ("prune-neurons", {"keep": 0.001}, "each of the 4 layers keeps at least one"),
        ("drop-layers", {"keep": 4}, "give a number from 1 to 3"),
        ("drop-layers", {"layers": (0, 4)}, "some of the layers 0 to 3"),
        ("drop-layers", {"layers": (1, 1)}, "each once"),
        ("search-layers", {"keep": 9}, "give a number from 1 to 3"),
    ],
)
def test_what_cannot_be_kept_is_refused(name: str, params: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        built(name, **params).apply(tiny_model("bert", "sequence"), resources("bert"))


@pytest.mark.parametrize("keep", [0, 1, 1.5, -0.1, float("nan"), "half"])
def test_a_share_outside_its_range_is_refused(keep: object) -> None:
    with pytest.raises(InputError, match="keep"):
        compressors.build("prune-heads", {"keep": keep})


@pytest.mark.parametrize("name", ["prune-heads", "prune-neurons", "drop-layers-by-contribution", "search-layers"])
def test_what_a_method_needs_and_does_not_get_is_named(name: str) -> None:
    with pytest.raises(InputError, match="--task and --data"):
        built(name).apply(tiny_model("bert", "sequence"), Resources())


@pytest.mark.parametrize("architecture", sorted(set(FAMILIES) - set(WHOLE)))
def test_an_architecture_without_names_for_its_parts_is_refused(architecture: str) -> None:
    with pytest.raises(InputError, match=f"does not fit architecture '{architecture}'"):
        built("prune-heads").apply(tiny_model(architecture, "sequence"), Resources())


def test_a_part_that_is_no_plain_matrix_is_refused() -> None:
    model = tiny_model("bert", "sequence")
    layers = layers_of(model)
    layers[2].intermediate = layers[1].intermediate
    with pytest.raises(InputError, match="intermediate of layer 2 is shared with another layer; take heads"):
        built("prune-heads").apply(model, Resources())


def test_layers_are_stepped_over_in_training_alone() -> None:
    model, given = sharp_model("distilbert", dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0), Resources()
    method = built("layer-drop", keep=2, rate=0.5)
    prepared = method.prepare(model, given)
    seen, batch = set(), batches("distilbert")[0]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(12):
            seen.add(tuple(logits(prepared.train(), batch).flatten().tolist()))
        assert 4 < len(seen) <= 12
        assert torch.equal(logits(prepared.eval(), batch), logits(model, batch))
        finished = method.finish(prepared.train())
        cut = deepcopy(model)
        cut_layers_(cut, [0, 3])
        assert torch.equal(logits(finished.train(), batch), logits(cut, batch))
    with pytest.raises(InputError, match="give a number from 1 to 3"):
        built("layer-drop", keep=4).prepare(model, given)
