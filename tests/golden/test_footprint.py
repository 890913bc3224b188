"""Counted parameters against closed forms and published counts."""

from typing import Any

import pytest
import torch
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

from affinage.evaluation.footprint import encoder_flops, equation_9, footprint


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
    assert encoder_flops(12, 768, 3072, 128) / 1e9 == pytest.approx(22.35, abs=0.005)


def test_flops_are_what_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = BertConfig(
        num_hidden_layers=3, hidden_size=24, num_attention_heads=4, intermediate_size=40, vocab_size=50,
        attn_implementation="eager",
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.ones(1, 17, dtype=torch.long))
    assert footprint(model, length=17).flops == counter.get_total_flops()
