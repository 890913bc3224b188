"""Low-rank methods on whole models: what is decomposed, how small it gets, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

import affinage.compression  # noqa: F401  (registers every method)
from affinage.compression.base import Resources, compressors
from affinage.compression.decomposition.statistics import fisher, input_moments, is_labelled, rows_of
from affinage.compression.linear_maps import in_attention, stock_linears
from affinage.errors import InputError
from affinage.models.modules.low_rank import LowRankEmbedding, LowRankLinear
from affinage.models.replacing import linears, word_embedding_path
from affinage.signals import IGNORED
from tiny import FAMILIES, tiny_model
from tiny_calibration import calibration_batches, class_loss, tiny_resources

METHODS = ("svd", "fisher-svd", "activation-svd", "sensitivity-svd")


def size(model: PreTrainedModel) -> int:
    return sum(p.numel() for p in model.parameters())


def logits(model: PreTrainedModel, architecture: str) -> Tensor:
    batch = calibration_batches(architecture)[0]
    with torch.no_grad():
        found: Tensor = model(input_ids=batch.input_ids, attention_mask=batch.mask.long()).logits
    return found


def apply(name: str, model: PreTrainedModel, resources: Resources | None = None, **params: Any) -> PreTrainedModel:
    method = compressors.build(name, params)
    made = method.apply(model, resources or Resources())  # type: ignore[union-attr]
    assert isinstance(made, PreTrainedModel)
    return made


@torch.no_grad()
def made_low_rank(model: PreTrainedModel, rank: int) -> PreTrainedModel:
    """The model with linear maps and word embeddings of this rank."""
    for path in [*stock_linears(model), word_embedding_path(model)]:
        weight = model.get_submodule(path).weight
        assert isinstance(weight, Tensor)
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        weight.copy_(u[:, :rank] * s[:rank] @ v[:rank])
    return model


@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_family_computes_the_same_where_the_rank_loses_nothing(architecture: str) -> None:
    model = made_low_rank(tiny_model(architecture, "mlm"), 3)
    maps = stock_linears(model)
    made = apply("svd", model, energy=1 - 1e-6)
    found = [m for m in made.modules() if isinstance(m, LowRankLinear)]
    assert len(found) == len(maps) and {m.rank for m in found} == {3}
    assert isinstance(made.get_submodule(word_embedding_path(made)), LowRankEmbedding)
    assert size(made) < size(model)
    assert torch.allclose(logits(made, architecture), logits(model, architecture), atol=1e-4)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_attention_and_feed_forward_are_told_apart(architecture: str) -> None:
    model = tiny_model(architecture, "mlm")
    attention, rest = stock_linears(model, "attention"), stock_linears(model, "feed-forward")
    assert not attention.keys() & rest.keys() and [*linears(model)] == [*stock_linears(model)]
    layers = 1 if architecture == "albert" else 4
    per_layer = {"modernbert": (2, 2), "eurobert": (4, 3)}.get(architecture, (4, 2))
    assert (len(attention) / layers, len(rest) / layers) == per_layer
    assert all(in_attention(model, path) for path in attention)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("keep", [0.3, 0.6])
def test_at_most_the_share_is_kept(name: str, keep: float) -> None:
    model = tiny_model("bert", "sequence")
    table = model.get_submodule(word_embedding_path(model))
    whole = sum(m.weight.numel() for m in stock_linears(model).values()) + table.weight.numel()  # type: ignore[operator,union-attr]
    made = apply(name, model, tiny_resources(), keep=keep)
    assert size(model) - size(made) >= (1 - keep) * whole
    assert size(model) - size(made) < (1 - keep) * whole * 1.5
    assert logits(made, "bert").isfinite().all()


@pytest.mark.parametrize("name", METHODS[:3])
def test_a_budget_over_all_gives_unlike_ranks(name: str) -> None:
    made = apply(name, tiny_model("bert", "sequence"), tiny_resources(), keep=0.4, allot="energy", parts="linears")
    assert len({m.rank for m in made.modules() if isinstance(m, LowRankLinear)}) > 1


def test_parts_are_chosen() -> None:
    model = tiny_model("camembert", "mlm")
    only = apply("svd", model, parts="attention", rank=2)
    assert {in_attention(only, p) for p, m in only.named_modules() if isinstance(m, LowRankLinear)} == {True}
    table = apply("svd", model, parts="embeddings", rank=2)
    assert [type(m) for m in table.modules() if isinstance(m, LowRankLinear | LowRankEmbedding)] == [LowRankEmbedding]
    both = apply("svd", table, parts="linears", rank=2)  # what is compressed stays as it is
    assert sum(isinstance(m, LowRankLinear) for m in both.modules()) == 24


def test_each_map_errs_no_more_on_calibration_text_than_by_plain_svd() -> None:
    model, batches = tiny_model("bert", "sequence"), calibration_batches()
    plain = apply("svd", model, rank=4, parts="linears")
    aware = apply("activation-svd", model, tiny_resources(), rank=4, parts="linears")
    maps = stock_linears(model)
    moments = input_moments(model, maps, batches, method="test")

    def lost(made: PreTrainedModel, path: str) -> float:
        """Mean squared error of the map's outputs, from the moments of its inputs."""
        old, new = maps[path], made.get_submodule(path)
        assert isinstance(new, LowRankLinear) and new.bias is not None
        weight = (old.weight - new.dense()).double()
        bias = (old.bias - new.bias).double()
        m = moments[path]
        square = (weight @ m.second * weight).sum() + 2 * bias @ weight @ m.mean + bias @ bias
        return float(square.detach())

    for path in maps:
        assert lost(aware, path) <= lost(plain, path) + 1e-12


def test_moments_are_those_of_real_tokens() -> None:
    model, batches = tiny_model("bert", "sequence"), calibration_batches()
    path = "bert.encoder.layer.0.attention.self.query"
    moments = input_moments(model, {path: stock_linears(model)[path]}, batches, method="test")[path]
    with torch.no_grad():
        rows = [model.bert.embeddings(b.input_ids)[b.mask] for b in batches]  # type: ignore[operator,union-attr]
    x = torch.cat(rows).double()
    assert moments.tokens == len(x)
    assert torch.allclose(moments.mean, x.mean(0), atol=1e-5)
    assert torch.allclose(moments.covariance, torch.cov(x.t(), correction=0), atol=1e-5)


def test_fisher_information_is_the_mean_square_of_each_examples_gradient() -> None:
    model = tiny_model("bert", "sequence").eval()
    weight = model.get_submodule("bert.encoder.layer.1.output.dense").weight
    assert isinstance(weight, nn.Parameter)
    found = fisher(model, {"w": weight}, tiny_resources(), method="test")["w"]
    squares = []
    for batch in calibration_batches():
        for row in rows_of(batch):
            model.zero_grad()
            class_loss(model, row).backward()  # type: ignore[no-untyped-call]
            assert weight.grad is not None
            squares.append(weight.grad.double().square())
    assert torch.allclose(found, torch.stack(squares).mean(0))


def test_examples_without_a_label_say_nothing() -> None:
    batch = calibration_batches()[0]
    labels = torch.tensor([0, IGNORED, 1, 1, IGNORED])
    assert [is_labelled(row) for row in rows_of(replace(batch, labels=labels))] == [True, False, True, True, False]
    values = torch.tensor([0.5, torch.nan, 1, 2, torch.nan])
    assert [is_labelled(row) for row in rows_of(replace(batch, labels=values))] == [True, False, True, True, False]


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("svd", {"rank": 4, "keep": 0.5}, "rank and keep both say the rank"),
        ("svd", {"rank": 4, "allot": "energy"}, "spends a budget, keep"),
        ("svd", {"rank": 16}, "the largest rank that is: 15"),
        ("svd", {"keep": 1.5}, "less than 1"),
        ("svd", {"rank": 0}, "greater than or equal to 1"),
        ("fisher-svd", {}, "fisher-svd needs calibration data"),
        ("activation-svd", {}, "activation-svd needs calibration data"),
        ("sensitivity-svd", {}, "sensitivity-svd needs calibration data"),
    ],
)
def test_what_cannot_be_done_is_refused(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        apply(name, tiny_model("bert", "sequence"), **params)


def test_too_short_calibration_text_and_a_second_decomposition_are_refused() -> None:
    model = tiny_model("bert", "sequence")
    few = sorted(rows_of(calibration_batches()[0]), key=lambda row: int(row.mask.sum()))[:1]
    with pytest.raises(InputError, match="tokens, and the widest input 32 entries"):
        apply("activation-svd", model, Resources(calibration=few))
    with pytest.raises(InputError, match="compressed already"):
        apply("svd", apply("svd", model))
