"""A width cut to the units that matter, in every stock architecture."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from affinage.compression.pruning.cutting import cut_neurons_, linear_of
from affinage.errors import InputError
from affinage.models.layout import layers_of, layout_of, tensor_of, widths_of
from compressing import WHOLE, batches, built, logits, resources, sharp_model


@pytest.mark.parametrize("architecture", WHOLE)
def test_a_narrower_model_is_stock(architecture: str, tmp_path: Path) -> None:
    head = "mlm" if architecture in ("electra", "camembert") else "sequence"
    model = sharp_model(architecture, head, num_attention_heads=4, n_heads=4)
    pruned = built("prune-width", keep=0.75).apply(model, resources(architecture))
    assert widths_of(pruned.config) == {"hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 32}
    pruned.save_pretrained(tmp_path)
    auto = AutoModelForMaskedLM if head == "mlm" else AutoModelForSequenceClassification
    stock, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    batch = batches(architecture)[0]
    with torch.no_grad():
        torch.testing.assert_close(logits(stock, batch), logits(pruned, batch), rtol=0, atol=0)


def test_units_and_heads_that_do_nothing_go() -> None:
    """Units 0, 3, 4 and 15 come out of every norm as 0; head 2 of every layer is read with weight 0."""
    model = sharp_model("bert", num_attention_heads=4)
    idle = [0, 3, 4, 15]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm" in name:
                parameter[idle] = 0
        for layer in layers_of(model):
            linear_of(model, layer, "attention_output").weight[:, 8:12] = 0
    pruned = built("prune-width", keep=0.75).apply(model, resources("bert"))
    units = torch.tensor([i for i in range(16) if i not in idle])
    rows = torch.tensor([i for i in range(16) if not 8 <= i < 12])
    table = layout_of(model.config).word_embeddings
    assert torch.equal(tensor_of(pruned, table), tensor_of(model, table)[:, units])
    for ours, theirs in zip(layers_of(pruned), layers_of(model), strict=True):
        for part, first, second in (("query", rows, units), ("value", rows, units), ("attention_output", units, rows)):
            expected = linear_of(model, theirs, part).weight[first][:, second]
            assert torch.equal(linear_of(pruned, ours, part).weight, expected)
        inner = linear_of(model, theirs, "intermediate")
        assert torch.equal(linear_of(pruned, ours, "intermediate").weight, inner.weight[:, units])
        assert torch.equal(linear_of(pruned, ours, "intermediate").bias, inner.bias)
    assert torch.equal(pruned.bert.pooler.dense.weight, model.bert.pooler.dense.weight[units][:, units])
    assert torch.equal(pruned.classifier.weight, model.classifier.weight[:, units])


def test_what_cannot_be_narrowed_is_refused() -> None:
    model, given = sharp_model("bert"), resources("bert")
    with pytest.raises(InputError, match="the width goes by whole heads"):
        built("prune-width", keep=0.9).apply(model, given)
    with pytest.raises(InputError, match="a width of 8 is that of the embeddings of this electra"):
        built("prune-width").apply(sharp_model("electra"), given)
    cut_neurons_(model, [torch.arange(i + 1) for i in range(4)])
    with pytest.raises(InputError, match="prune-width comes first"):
        built("prune-width").apply(model, given)
