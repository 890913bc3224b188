"""Heads, neurons and layers taken out of the tensors: the rest computes what it did with these parts closed."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from affinage.compression.base import Resources, compressors
from affinage.compression.pruning.cutting import (
    cut_heads_,
    cut_layers_,
    cut_neurons_,
    head_counts,
    linear_of,
    neuron_counts,
)
from affinage.compression.pruning.gates import gated
from affinage.errors import InputError
from affinage.evaluation.footprint import encoder_flops
from affinage.models.checkpoint import load_model
from affinage.models.layout import layers_of, layout_of, widths_of
from affinage.models.storage import save_model
from affinage.models.structure import structure_of
from affinage.models.transfer import copy_layers_, copy_outside_layers_
from affinage.runtime.onnx.build import onnx_graph
from applied import begun, trained_and_finished
from compressing import CUTTABLE, WHOLE, batches, built, logits, parameters, resources, sharp_model
from onnx_graphs import graph_outputs, inputs_of, torch_outputs
from tiny import FAMILIES, tiny_model, tiny_tokenizer

HEADS = [torch.tensor([0, 2]), torch.tensor([3]), torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2])]

every_whole = pytest.mark.parametrize("architecture", WHOLE)
MOBILEBERT: tuple[str, dict[str, object]] = ("mobilebert", {"normalization_type": "layer_norm"})
"""that layers can be taken out of, and nothing else"""
every_cuttable = pytest.mark.parametrize(("architecture", "config"), CUTTABLE)


TRACED, QUICK = ("deberta-v2", "modernbert", "eurobert"), "prune-fisher"
"""families whose graphs take seconds to trace, and the method that is tried on them among quick tests"""


def closed(kept: list[Tensor], count: int) -> list[Tensor]:
    return [torch.zeros(count).index_fill_(0, part, 1.0) for part in kept]


def outputs(model: PreTrainedModel, architecture: str) -> Tensor:
    with torch.no_grad():
        return torch.cat([logits(model, batch) for batch in batches(architecture, rows=6)])


def of_heads(model: PreTrainedModel, layer: nn.Module) -> int:
    """Numbers in the maps to queries, keys and values, in those of positions, and in the one from heads."""
    last = linear_of(model, layer, "attention_output")
    inside = layer.get_submodule(layout_of(model.config).query.rpartition(".")[0]).modules()
    maps = [module for module in inside if isinstance(module, nn.Linear) and module is not last]
    return last.weight.numel() + sum(parameter.numel() for one in maps for parameter in one.parameters())


@every_cuttable
def test_a_model_without_heads_computes_what_it_does_with_their_gates_closed(
    architecture: str, config: dict[str, object]
) -> None:
    model = sharp_model(architecture, num_attention_heads=4, n_heads=4, **config)
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
    assert 16 * (parameters(model) - parameters(cut)) == 7 * sum(of_heads(model, layer) for layer in layers_of(model))


@every_cuttable
def test_a_model_without_neurons_computes_what_it_does_with_them_zeroed(
    architecture: str, config: dict[str, object]
) -> None:
    model = sharp_model(architecture, **config)
    cut, zeroed = deepcopy(model), deepcopy(model)
    width = neuron_counts(model)[0]
    neurons = [torch.arange(0, width, 2), torch.tensor([5]), torch.arange(width), torch.tensor([0, width - 1])]
    cut_neurons_(cut, neurons)
    for layer, kept in zip(layers_of(zeroed), neurons, strict=True):
        gone = [neuron for neuron in range(width) if neuron not in kept]
        linear_of(zeroed, layer, "output").weight.data[:, gone] = 0
    with gated(model, neurons=closed(neurons, width)):
        expected = outputs(model, architecture)
    assert neuron_counts(cut) == [width // 2, 1, width, 2]
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


@pytest.mark.parametrize(("architecture", "config"), [*CUTTABLE, MOBILEBERT])
def test_what_is_left_of_the_layers_is_the_shallower_model(architecture: str, config: dict[str, object]) -> None:
    model = sharp_model(architecture, **config)
    cut = built("drop-layers", layers=(0, 3)).apply(model, Resources())
    if kinds := getattr(model.config, "layer_types", None):
        config = {**config, "layer_types": [kinds[0], kinds[3]]}
    shallow = sharp_model(architecture, **config, num_hidden_layers=2, n_layers=2)
    copy_layers_(model, shallow, layers=[0, 3])
    copy_outside_layers_(model, shallow)
    torch.testing.assert_close(outputs(cut, architecture), outputs(shallow, architecture), rtol=0, atol=0)
    assert cut.config.num_hidden_layers == len(layers_of(cut)) == 2 and structure_of(cut).empty


@pytest.mark.parametrize(
    ("name", "architecture", "config"),
    [
        pytest.param(
            name, architecture, config, marks=[pytest.mark.slow] if (architecture in TRACED and name != QUICK) else []
        )
        for name in ("prune-heads", "prune-neurons-evenly", "prune-fisher", "drop-layers-by-contribution")
        for architecture, config in CUTTABLE
    ],
)
def test_what_was_cut_is_stored_loaded_and_a_graph(
    name: str, architecture: str, config: dict[str, object], tmp_path: Path
) -> None:
    model = sharp_model(architecture, num_attention_heads=4, n_heads=4, **config)
    pruned = built(name).apply(model, resources(architecture))
    assert encoder_flops(pruned, 24) < encoder_flops(model, 24)
    save_model(pruned, tmp_path)
    torch.testing.assert_close(
        outputs(load_model(tmp_path), architecture), outputs(pruned, architecture), rtol=0, atol=0
    )
    inputs = inputs_of(architecture)
    found, expected = graph_outputs(onnx_graph(pruned), inputs), torch_outputs(pruned, inputs)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5, rtol=1e-4)


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


@pytest.mark.parametrize("architecture", sorted(set(FAMILIES) - {name for name, _ in CUTTABLE}))
def test_an_architecture_without_names_for_its_parts_is_refused(architecture: str) -> None:
    with pytest.raises(InputError, match=f"does not fit architecture '{architecture}'"):
        built("prune-heads").apply(tiny_model(architecture, "sequence"), Resources())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("prune-width", "its parts are not known one by one; it takes BERT, .* DistilBERT and ELECTRA"),
        ("layer-drop", "its layers are no modules of their own; it takes all but ALBERT and FlauBERT"),
    ],
)
def test_what_flaubert_does_not_bear_is_refused(name: str, said: str) -> None:
    with pytest.raises(InputError, match=f"{name} does not fit architecture 'flaubert': {said}"):
        begun(built(name), tiny_model("flaubert", "sequence"), tiny_tokenizer("flaubert"), resources("flaubert"))


@pytest.mark.parametrize(("architecture", "config"), [*CUTTABLE[-4:], MOBILEBERT])
@pytest.mark.parametrize("name", ["search-layers", "drop-layers-by-contribution", "layer-drop"])
def test_layers_go_by_every_method_where_nothing_else_does(
    name: str, architecture: str, config: dict[str, object], tmp_path: Path
) -> None:
    model = sharp_model(architecture, **config)
    prepared, _ = begun(built(name, keep=2), model, tiny_tokenizer(architecture), resources(architecture))
    cut = trained_and_finished(built(name, keep=2), prepared, architecture, "sequence")
    assert len(layers_of(cut)) == 2 and structure_of(cut).empty
    save_model(cut, tmp_path)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(outputs(stock.eval(), architecture), outputs(cut, architecture), rtol=0, atol=0)


def test_heads_that_share_keys_and_values_stay() -> None:
    model, given = sharp_model("eurobert"), resources("eurobert")
    assert model.config.num_key_value_heads == 1
    for name in ("prune-heads", "prune-fisher"):
        with pytest.raises(InputError, match=f"{name}: 2 heads of this eurobert share 1 of keys and values"):
            built(name).apply(model, given)
    assert neuron_counts(built("prune-neurons-evenly").apply(model, given)) == [16] * 4


def test_a_first_layer_that_differs_stays() -> None:
    model, given = sharp_model("modernbert"), resources("modernbert")
    with pytest.raises(InputError, match="first layer of a modernbert lacks what the others have"):
        built("drop-layers", layers=(1, 3)).apply(model, Resources())
    first = layers_of(model)[0].state_dict()
    for name in ("search-layers", "drop-layers-by-contribution"):
        left = layers_of(built(name, keep=1).apply(model, given))
        assert all(torch.equal(value, first[key]) for key, value in left[0].state_dict().items())


def test_what_an_albert_has_cannot_be_left_out() -> None:
    with pytest.raises(InputError, match="'albert': its layers share one set of weights; it takes all but ALBERT"):
        built("drop-layers").apply(tiny_model("albert", "sequence"), Resources())


def test_one_layer_stays() -> None:
    model = sharp_model("bert", num_hidden_layers=1)
    with pytest.raises(InputError, match="the model has one layer, which stays: leave this step out"):
        built("drop-layers").apply(model, Resources())


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
