"""Sharing and tensor decompositions on whole models: what is shared, how small it gets, what loads, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, PreTrainedModel

import affinage.compression  # noqa: F401  (registers every method)
from affinage.compression.base import Resources, compressors
from affinage.compression.linear_maps import in_attention, stock_linears
from affinage.compression.sharing.layers import grouped
from affinage.errors import InputError
from affinage.models.checkpoint import load_masked_lm
from affinage.models.modules.base import Compressed
from affinage.models.replacing import linears, word_embedding_path
from tiny import FAMILIES, tiny_model, tiny_tokenizer
from tiny_calibration import calibration_batches, tiny_resources

TABLES = ("west", "slim-embeddings", "quotient-remainder", "light-rnn")
QUICK = ("bert", "camembert", "flaubert", "modernbert")
SOME = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES]
UNSHARED = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in FAMILIES if n != "albert"]
WHOLE = ("camembert", "roberta", "bert", "distilbert", "xlm-roberta", "electra")


def size(model: PreTrainedModel) -> int:
    return sum(p.numel() for p in model.parameters())


def apply(name: str, model: PreTrainedModel, **params: Any) -> PreTrainedModel:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    made = compressors.build(name, params).apply(model, Resources())  # type: ignore[union-attr]
    assert isinstance(made, PreTrainedModel) and not made.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return made


def output(model: PreTrainedModel, architecture: str) -> Tensor:
    """(real tokens, …) logits, or classes."""
    batch = calibration_batches(architecture)[0]
    with torch.no_grad():
        found = model(input_ids=batch.input_ids, attention_mask=batch.mask.long())
    logits: Tensor = found.logits if "logits" in found else found.start_logits
    return logits[batch.mask] if logits.dim() > 1 and logits.shape[:2] == batch.mask.shape else logits


@pytest.mark.parametrize("architecture", SOME)
@pytest.mark.parametrize("name", ["kronecker", "tensor-train", "tucker"])
def test_every_family_is_decomposed_and_computes_what_the_modules_stand_for(name: str, architecture: str) -> None:
    model = tiny_model(architecture, "mlm")
    made = apply(name, model)
    dense = apply(name, model)
    for path, module in list(dense.named_modules()):
        if (isinstance(module, Compressed) and path in linears(model)) or path in stock_linears(model):
            whole = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)  # type: ignore[arg-type]
            whole.weight = nn.Parameter(module.dense().detach())  # type: ignore[operator]
            whole.bias = module.bias  # type: ignore[assignment]
            parent, _, last = path.rpartition(".")
            setattr(dense.get_submodule(parent), last, whole)
    assert size(made) < size(model)
    kinds = [type(m) for m in made.modules() if isinstance(m, Compressed)]
    assert len(kinds) == len(stock_linears(model)) + 1
    assert torch.allclose(output(made, architecture), output(dense, architecture), atol=1e-4)


@pytest.mark.parametrize("architecture", SOME)
@pytest.mark.parametrize("name", TABLES)
def test_every_familys_embeddings_can_be_shared_and_stay_tied(name: str, architecture: str) -> None:
    model = tiny_model(architecture, "mlm")
    made = apply(name, model)
    table = made.get_submodule(word_embedding_path(made))
    assert isinstance(table, Compressed) and size(made) < size(model)
    assert output(made, architecture).shape == output(model, architecture).shape
    stock = model.get_submodule(word_embedding_path(model)).weight
    assert isinstance(stock, Tensor)
    lost = (table.dense() - stock).square().sum() / (stock - stock.mean(0)).square().sum()
    assert lost < 1


def test_tables_of_several_strengths_err_less_the_larger_they_are() -> None:
    model = tiny_model("bert", "mlm")
    stock = model.get_submodule(word_embedding_path(model)).weight
    grids: dict[str, list[dict[str, Any]]] = {
        "slim-embeddings": [{"keep": 0.1}, {"keep": 0.6}],
        "quotient-remainder": [{"keep": 0.2}, {"keep": 0.8}],
        "light-rnn": [{}, {"keep": 0.6}],
        "west": [{"alphabet": 8}, {"alphabet": 128}],
    }
    for name, settings in grids.items():
        tables = [apply(name, model, **params).get_submodule(word_embedding_path(model)) for params in settings]
        small, large = (float((t.dense() - stock).detach().square().sum()) for t in tables)  # type: ignore[operator]
        assert large < small
        counts = [sum(p.numel() for p in table.parameters()) for table in tables]
        assert counts[0] < counts[1]


@pytest.mark.parametrize("architecture", UNSHARED)
@pytest.mark.parametrize("parts", ["all", "attention", "feed-forward"])
def test_layers_share_what_is_named(parts: str, architecture: str) -> None:
    model = tiny_model(architecture, "mlm")
    made = apply("share-layers", model, parts=parts)
    before, after = linears(model), linears(made)
    shared = [p for p in before if parts == "all" or in_attention(model, p) == (parts == "attention")]
    assert len(after) == len(before) - len(shared) * 3 // 4
    assert len(linears(apply("share-layers", model, parts=parts, groups=2))) == len(before) - len(shared) // 2
    assert output(made, architecture).isfinite().all()


def test_what_a_group_starts_from_is_chosen() -> None:
    model = tiny_model("bert", "mlm")
    path = "bert.encoder.layer.{}.output.dense"
    weights = [model.get_submodule(path.format(i)).weight for i in range(4)]
    wanted = {"first": weights[0], "middle": weights[1], "last": weights[3], "mean": torch.stack(weights).mean(0)}  # type: ignore[arg-type]
    for start, weight in wanted.items():
        made = apply("share-layers", model, start=start)
        assert torch.allclose(made.get_submodule(path.format(2)).weight, weight)  # type: ignore[arg-type]
    assert grouped(6, 2, "neighbours") == [[0, 1, 2], [3, 4, 5]] and grouped(5, 2, "cycle") == [[0, 2, 4], [1, 3]]
    cycle = apply("share-layers", model, groups=2, order="cycle", start="first")
    assert [int((cycle.get_submodule(path.format(i)).weight == weights[i % 2]).all()) for i in range(4)] == [1] * 4


def test_alike_layers_lose_nothing_and_a_shared_map_learns_from_every_layer() -> None:
    model = tiny_model("bert", "mlm")
    first = model.get_submodule("bert.encoder.layer.0").state_dict()
    for i in range(1, 4):
        model.get_submodule(f"bert.encoder.layer.{i}").load_state_dict(first)
    made = apply("share-layers", model)
    assert torch.allclose(output(made, "bert"), output(model, "bert"))
    batch = calibration_batches("bert")[0]
    for one in (made, model):
        one(input_ids=batch.input_ids, attention_mask=batch.mask.long()).logits.square().mean().backward()
    path = "bert.encoder.layer.{}.output.dense"
    total = sum(model.get_submodule(path.format(i)).weight.grad for i in range(4))  # type: ignore[union-attr,misc]
    assert torch.allclose(made.get_submodule(path.format(0)).weight.grad, total, atol=1e-6)  # type: ignore[union-attr,arg-type]


def test_factored_layers_are_shared_where_their_ranks_are_alike() -> None:
    even = apply("share-layers", apply("svd", tiny_model("bert", "mlm"), parts="linears", rank=3))
    assert size(even) < size(apply("svd", tiny_model("bert", "mlm"), parts="linears", rank=3))
    uneven = compressors.build("svd", {"keep": 0.4, "allot": "energy", "parts": "linears"})
    with pytest.raises(InputError, match="unlike form or size"):
        apply("share-layers", uneven.apply(tiny_model("bert", "mlm"), Resources()))  # type: ignore[union-attr]


@pytest.mark.parametrize("architecture", WHOLE)
def test_as_albert_without_sharing_the_encoder_computes_the_same(architecture: str) -> None:
    """So all that is approximate is what is left out: layers that differ, and width of embeddings."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = tiny_model(architecture, "token", **({"embedding_size": 16} if architecture == "electra" else {}))
        for name, parameter in model.named_parameters():
            if "norm" in name.lower():
                torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
        made = apply("albert", model, embedding_size=16, groups=4)
    assert made.config.model_type == "albert" and type(made).__name__ == "AlbertForTokenClassification"
    assert torch.allclose(output(made, architecture), output(model, architecture), atol=1e-4)


@pytest.mark.parametrize("architecture", WHOLE)
@pytest.mark.parametrize("head", ["mlm", "sequence", "token", "span"])
def test_stock_transformers_loads_it_as_albert(head: str, architecture: str, tmp_path: Path) -> None:
    model = tiny_model(architecture, head, id2label={0: "no", 1: "yes"})
    made = apply("albert", model)
    assert size(made) < size(model) / 2
    assert made.config.id2label == {0: "no", 1: "yes"}
    made.save_pretrained(tmp_path)
    again = type(made).from_pretrained(tmp_path)
    assert torch.equal(output(again.eval(), architecture), output(made, architecture))
    if head == "mlm":
        tiny_tokenizer(architecture).save_pretrained(tmp_path)
        loaded, whole = load_masked_lm(tmp_path)
        assert whole and torch.equal(output(loaded, architecture), output(made, architecture))
        assert isinstance(AutoModelForMaskedLM.from_pretrained(tmp_path), type(made))
    if head == "sequence":
        assert isinstance(AutoModelForSequenceClassification.from_pretrained(tmp_path), type(made))


def test_an_electra_with_narrow_embeddings_is_albert_but_for_its_layers() -> None:
    model = tiny_model("electra", "mlm")
    made = apply("albert", model, groups=4)
    assert made.config.embedding_size == 8
    assert torch.allclose(output(made, "electra"), output(model, "electra"), atol=1e-4)


def test_wider_embeddings_start_nearer() -> None:
    """Without shared layers, so that the embeddings alone are approximate."""
    model = tiny_model("camembert", "token")
    wanted = output(model, "camembert")
    errors = [
        float((output(apply("albert", model, groups=4, embedding_size=e), "camembert") - wanted).square().mean())
        for e in (4, 8, 12, 16)
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(
    ("name", "architecture", "params", "message"),
    [
        ("share-layers", "albert", {}, "share their weights already"),
        ("albert", "albert", {}, "the model is an ALBERT already; leave this step out"),
        ("share-layers", "bert", {"groups": 4}, "4 groups of 4 layers share nothing; at most 3"),
        ("share-layers", "bert", {"parts": "none"}, "'all', 'attention' or 'feed-forward'"),
        ("albert", "modernbert", {}, "share-layers takes others"),
        ("albert", "bert", {"groups": 5}, "at most as many as layers"),
        ("albert", "bert", {"embedding_size": 17}, "is above the width 16"),
        ("albert", "electra", {"embedding_size": 16}, "a width of their own, 8"),
        ("kronecker", "bert", {"block": 3}, "block 3 does not divide"),
        ("kronecker", "bert", {"terms": 2}, "at most 1"),
        ("kronecker", "bert", {"terms": 4, "parts": "linears"}, "at most 3"),
        ("tensor-train", "bert", {"rank": 3, "keep": 0.5}, "both say the rank"),
        ("tensor-train", "bert", {"rank": 500}, "no smaller than the matrices"),
        ("tucker", "bert", {"keep": 0.01}, "raise keep"),
        ("west", "bert", {"length": 3}, "does not divide"),
        ("west", "bert", {"alphabet": 1000}, "for 250 tokens"),
        ("slim-embeddings", "bert", {"pieces": 3}, "do not divide"),
        ("light-rnn", "bert", {"keep": 2.0}, "less than 1"),
    ],
)
def test_what_cannot_be_done_is_refused(name: str, architecture: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        apply(name, tiny_model(architecture, "mlm"), **params)


@pytest.mark.parametrize("name", TABLES)
def test_embeddings_are_replaced_once(name: str) -> None:
    made = apply("svd", tiny_model("bert", "sequence"), parts="embeddings")
    with pytest.raises(InputError, match="embeddings are compressed already"):
        compressors.build(name).apply(made, tiny_resources())  # type: ignore[union-attr]
