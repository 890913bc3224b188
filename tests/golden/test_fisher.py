"""Fisher masks against trying every mask, their exchange, and the factors against least squares in NumPy."""

from copy import deepcopy
from itertools import product

import numpy as np
import pytest
import torch

from affinage.compression.pruning.cutting import (
    cut_heads_,
    cut_neurons_,
    head_counts,
    linear_of,
    neuron_counts,
)
from affinage.compression.pruning.fisher import Work, rearranged, search, work_of
from affinage.compression.pruning.tuning import factors_of, tune_
from affinage.errors import InputError
from affinage.models.layout import layers_of
from compressing import batches, built, logits, parameters, resources, sharp_model


def masks(layers: list[np.ndarray]) -> list[np.ndarray]:
    """Every choice that leaves each layer one."""
    found = []
    for bits in product((0, 1), repeat=sum(map(len, layers))):
        mask = np.array(bits)
        if all(part.any() for part in np.split(mask, np.cumsum([len(layer) for layer in layers])[:-1])):
            found.append(mask)
    return found


@pytest.mark.parametrize("budget", [19, 23, 30, 41])
def test_search_finds_the_best_of_all_masks(budget: int) -> None:
    random = np.random.default_rng(budget)
    heads, neurons = [random.random(2) * 4, random.random(2)], [random.random(3) * 2, random.random(2)]
    work = Work(head=7, neuron=2, whole=4 * 7 + 5 * 2, least=2 * 7 + 2 * 2)
    kept = search([torch.tensor(x) for x in heads], [torch.tensor(x) for x in neurons], work, budget)
    value = sum(x[k.numpy()].sum() for x, k in zip(heads + neurons, kept.heads + kept.neurons, strict=True))
    flat_heads, flat_neurons = np.concatenate(heads), np.concatenate(neurons)
    best = max(
        flat_heads @ of_heads + flat_neurons @ of_neurons
        for of_heads in masks(heads)
        for of_neurons in masks(neurons)
        if 7 * of_heads.sum() + 2 * of_neurons.sum() <= budget
    )
    assert value == pytest.approx(best)
    assert 7 * sum(map(len, kept.heads)) + 2 * sum(map(len, kept.neurons)) <= budget
    with pytest.raises(ValueError, match="below the least, 18"):
        search([torch.tensor(x) for x in heads], [torch.tensor(x) for x in neurons], work, 17)


def test_work_is_counted_by_hand() -> None:
    """12 heads of 64 and 3072 neurons at width 768: four maps of 768 x 64 a head, and 128 tokens compared and mixed."""
    model = sharp_model("bert")
    work = work_of(model)
    assert (work.head, work.neuron) == (4 * 16 * 8 + 2 * 128 * 8, 32)
    assert (work.whole, work.least) == (4 * (2 * work.head + 32 * 32), 4 * (work.head + 32))


def test_parts_whose_effects_cancel_go_together() -> None:
    """Two gates pull 3 and -3: without both nothing changes, though each alone is the most important."""
    gradients = torch.tensor([[3.0, -3.0, 0.0, 0.0], [0.0, 0.0, 2.0, 2.5]])
    assert rearranged(gradients, torch.tensor([0, 1])).tolist() == [2, 3]
    assert rearranged(gradients, torch.tensor([0, 1, 2, 3])).tolist() == [0, 1, 2, 3]


def test_exchanging_never_raises_the_information_that_is_lost() -> None:
    random = np.random.default_rng(0)
    for count in (1, 4, 8):
        gradients = random.normal(size=(5, 9)) + 0.5
        kept = np.sort(random.choice(9, count, replace=False))
        after = rearranged(torch.tensor(gradients), torch.tensor(kept)).numpy()
        lost = [float((np.delete(gradients, part, axis=1).sum(1) ** 2).sum()) for part in (kept, after)]
        assert len(after) == count and lost[1] <= lost[0] + 1e-9


def test_factors_are_those_of_damped_least_squares() -> None:
    random = np.random.default_rng(1)
    z, r = random.normal(size=(20, 4)), random.normal(size=20)
    damp = 1e-3 * np.diag(z.T @ z).mean()
    stacked, right = np.vstack([z, np.sqrt(damp) * np.eye(4)]), np.concatenate([r, np.zeros(4)])
    expected = 1 + np.linalg.lstsq(stacked, right, rcond=None)[0]
    found = factors_of(torch.tensor(z.T @ z), torch.tensor(z.T @ r))
    np.testing.assert_allclose(found.numpy(), expected)
    assert factors_of(torch.zeros(2, 2), torch.zeros(2)).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("camembert", {}),
        ("distilbert", {}),
        ("flaubert", {}),
        ("flaubert", {"pre_norm": True}),
        ("deberta-v2", {}),
    ],
)
def test_tuning_gives_a_twins_work_to_the_one_that_stays(architecture: str, config: dict[str, object]) -> None:
    """Two heads of the second layer, and two neurons of the third, are alike: one of each, doubled, does for both."""
    model = sharp_model(architecture, num_attention_heads=4, n_heads=4, **config)
    second, third = layers_of(model)[1], layers_of(model)[2]
    with torch.no_grad():
        for part in ("query", "key", "value"):
            for tensor in (linear_of(model, second, part).weight, linear_of(model, second, part).bias):
                tensor[8:12] = tensor[0:4]
        for tensor in (linear_of(model, third, "intermediate").weight, linear_of(model, third, "intermediate").bias):
            tensor[7] = tensor[3]
        for linear, one, other in ((second, slice(0, 4), slice(8, 12)), (third, slice(3, 4), slice(7, 8))):
            part = "attention_output" if linear is second else "output"
            weight = linear_of(model, linear, part).weight
            weight[:, other] = weight[:, one]
    cut = deepcopy(model)
    alls = torch.arange(4)
    cut_heads_(cut, [alls, torch.tensor([0, 1, 3]), alls, alls])
    everyone = torch.arange(neuron_counts(model)[0])
    cut_neurons_(cut, [everyone, everyone, everyone[everyone != 7], everyone])
    given = batches(architecture)
    with torch.no_grad():
        whole, before = logits(model, given[0]), logits(cut, given[0])
        tune_(cut, model, given)
        after = logits(cut, given[0])
    assert (before - whole).abs().max() > 20 * (after - whole).abs().max()


@pytest.mark.parametrize(
    ("architecture", "config", "reads_the_last"),
    [
        ("modernbert", {}, True),
        ("eurobert", {"num_key_value_heads": None}, True),
        ("flaubert", {"pre_norm": True}, False),
    ],
)
def test_where_norms_come_first_factors_are_fitted_to_what_the_next_one_reads(
    architecture: str, config: dict[str, object], reads_the_last: bool
) -> None:
    """Rows with scales from 0.5 to 2 on every head and neuron: what is left, scaled, does what they did without."""
    model, given = sharp_model(architecture, num_attention_heads=4, n_heads=4, **config), batches(architecture)
    scaled = deepcopy(model)
    with torch.no_grad():
        for layer in layers_of(scaled):
            for part in ("attention_output", "output"):
                weight = linear_of(scaled, layer, part).weight
                units = 4 if part == "attention_output" else weight.shape[1]
                weight.mul_(torch.linspace(0.5, 2, units).repeat_interleave(weight.shape[1] // units))
        whole, before = logits(model, given[0]), logits(scaled, given[0])
        last = linear_of(scaled, layers_of(scaled)[-1], "output").weight.clone()
        tune_(scaled, model, given)
        after = logits(scaled, given[0])
    assert torch.equal(last, linear_of(scaled, layers_of(scaled)[-1], "output").weight) != reads_the_last
    if reads_the_last:
        assert (before - whole).abs().max() > 10 * (after - whole).abs().max()
    else:
        assert (before - whole).abs().max() > (after - whole).abs().max()


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_as_much_work_stays_as_asked_for(architecture: str) -> None:
    model, given = sharp_model(architecture, num_attention_heads=4, n_heads=4), resources(architecture)
    for keep in (0.35, 0.7):
        for options in ({}, {"rearrange": False, "tune": False}):
            pruned = built("prune-fisher", keep=keep, **options).apply(model, given)
            assert 0.85 * keep < work_of(pruned).whole / work_of(model).whole <= keep
            assert min(head_counts(pruned)) >= 1 and min(neuron_counts(pruned)) >= 1
    fast = built("prune-to-latency", latency=0.8).apply(model, given)
    assert 0.75 < parameters(fast) / parameters(model) <= 0.8


def test_what_cannot_be_reached_is_refused() -> None:
    model, given = sharp_model("bert"), resources("bert")
    with pytest.raises(InputError, match="keeps at least one head and one neuron, which makes keep="):
        built("prune-fisher", keep=0.1).apply(model, given)
    with pytest.raises(InputError, match=r"a text still takes .* of what it took; leave layers out"):
        built("prune-to-latency", latency=0.1).apply(model, given)
