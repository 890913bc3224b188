"""Counted parameters against closed forms and published counts."""

from itertools import product
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    CamembertConfig,
    CamembertForMaskedLM,
    CamembertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertModel,
    PreTrainedModel,
)

from affinage.compression.plan import step_of
from affinage.evaluation.footprint import equation_9, footprint
from affinage.models.layout import depth_of, widths_of
from affinage.models.modules.tucker import TuckerEmbedding
from applied import resources
from tiny import FAMILIES, tiny_model


def on_meta(model: Any, config: Any) -> PreTrainedModel:
    """The model without memory behind its weights."""
    with torch.device("meta"):
        built: PreTrainedModel = model(config)
    return built


def camembert(layers: int) -> CamembertConfig:
    return CamembertConfig(vocab_size=32_005, max_position_embeddings=514, type_vocab_size=1, num_hidden_layers=layers)


@pytest.mark.parametrize(("layers", "printed"), [(12, 110_030_592), (6, 67_503_360)])
def test_equation_9_and_token_types_are_the_counted_camembert(layers: int, printed: int) -> None:
    """Delestre & Amar 2022, equation 9; it leaves out the one row of token types, 768 numbers."""
    assert equation_9(layers=layers, width=768, inner=3072, vocabulary=32_005, positions=514) == printed
    counted = footprint(on_meta(CamembertModel, camembert(layers)))
    assert counted.embeddings + counted.encoder == printed + 768
    assert counted.layers == layers
    assert counted.max_length == 512


@pytest.mark.parametrize(
    ("model", "config", "published"),
    [
        (BertModel, BertConfig(), 109_482_240),
        (DistilBertModel, DistilBertConfig(), 66_362_880),
        # MiniLM-L6-H384
        (
            BertModel,
            BertConfig(num_hidden_layers=6, hidden_size=384, num_attention_heads=12, intermediate_size=1536),
            22_713_216,
        ),
        # TinyBERT-4-312
        (
            BertModel,
            BertConfig(num_hidden_layers=4, hidden_size=312, num_attention_heads=12, intermediate_size=1200),
            14_350_248,
        ),
    ],
)
def test_published_counts(model: Any, config: Any, published: int) -> None:
    assert footprint(on_meta(model, config)).parameters == published


def test_a_vocabulary_head_shares_its_weight_with_the_embeddings() -> None:
    """The head adds a dense map, its norm and one bias a piece."""
    found = footprint(on_meta(CamembertForMaskedLM, camembert(12)))
    assert found.head == 768 * 768 + 768 + 2 * 768 + 32_005
    assert found.pooler == 0
    assert found.parameters == 110_030_592 + 768 + found.head
    assert footprint(on_meta(BertForMaskedLM, BertConfig())).head == 768 * 768 + 768 + 2 * 768 + 30_522


def test_parts_of_a_distilbert_classifier() -> None:
    found = footprint(on_meta(DistilBertForSequenceClassification, DistilBertConfig(num_labels=3)))
    assert found.embeddings + found.encoder == 66_362_880
    assert found.head == (768 * 768 + 768) + (3 * 768 + 3)
    assert (found.heads, found.intermediate_size) == (12, 3072)


def test_flops_of_the_base_encoder() -> None:
    """12 layers, width 768, 128 tokens: 22.35 GFLOP, measured elsewhere by another tool."""
    counted = footprint(on_meta(BertModel, BertConfig()), length=128).flops
    assert counted == 12 * 128 * (2 * (4 * 768**2 + 2 * 768 * 3072) + 4 * 128 * 768)
    assert counted / 1e9 == pytest.approx(22.35, abs=0.005)


@pytest.mark.parametrize("architecture", [name for name in (*FAMILIES, "mobilebert") if "deberta" not in name])
def test_flops_are_what_torch_counts(architecture: str) -> None:
    """From ids to the last hidden states. DeBERTa's products with relative positions are not counted here."""
    check_flops(tiny_model(architecture, "sequence"))


@pytest.mark.parametrize(
    ("architecture", "step"),
    [
        *product(
            ("bert", "flaubert", "modernbert"),
            ("svd:keep=0.5,parts=linears", "svd:keep=0.5,parts=embeddings", "kronecker:block=4,terms=2",
             "tensor-train:keep=0.5,parts=embeddings", "share-layers"),
        ),
        ("bert", "albert:groups=2"),
    ],
)  # fmt: skip
def test_flops_of_compressed_maps_and_tables_are_what_torch_counts(architecture: str, step: str) -> None:
    given = resources(architecture, "sequence", frozenset())
    check_flops(step_of(step).build().apply(tiny_model(architecture, "sequence"), given))


def check_flops(model: PreTrainedModel) -> None:
    model.set_attn_implementation("eager")  # torch counts no fused attention
    base, ids = model.base_model.eval(), torch.full((1, 17), 7)
    if getattr(base, "pooler", None) is not None:
        base.pooler = None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        base(ids)
    assert footprint(model, length=17).flops == counter.get_total_flops()


@pytest.mark.parametrize("numbers", ["int8", "int4", "k-means", "binary", "prune-magnitude:sparsity=0.5"])
@pytest.mark.parametrize("architecture", ["bert", "flaubert"])
def test_what_factors_are_stored_as_changes_no_operations(architecture: str, numbers: str) -> None:
    model = tiny_model(architecture, "sequence")
    given = resources(architecture, "sequence", frozenset({"calibration", "gradients"}))
    thin = step_of("svd:rank=3,parts=linears").build().apply(model, given)
    packed = step_of(numbers).build().apply(thin, given)
    width, inner, layers = 16, widths_of(model.config)["intermediate_size"], depth_of(model.config)
    maps = 3 * (4 * (width + width) + 2 * (width + inner))
    counted = [footprint(one, length=10).flops for one in (thin, packed)]
    assert counted == [layers * (2 * 10 * maps + 4 * 100 * width)] * 2


def test_matrices_that_are_made_of_their_cores_count_as_the_products_with_them() -> None:
    """Of trains and Tucker decompositions: the making is done once, and in a graph when it is loaded."""
    model = tiny_model("bert", "sequence")
    whole, given = footprint(model, length=10).flops, resources("bert", "sequence", frozenset())
    for name in ("tensor-train", "tucker"):
        made = step_of(f"{name}:keep=0.5,parts=linears").build().apply(model, given)
        assert footprint(made, length=10).flops == whole
    made = step_of("tucker:keep=0.5,parts=embeddings").build().apply(model, given)
    table = made.get_submodule("bert.embeddings.word_embeddings")
    assert isinstance(table, TuckerEmbedding)
    assert footprint(made, length=10).flops == whole + 2 * 10 * table.ranks[0] * 16
