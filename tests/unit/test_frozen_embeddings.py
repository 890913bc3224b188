"""A task model without its encoder: nothing of it left but frozen embeddings and a head that reads their mean."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, relu
from transformers import MPNetConfig, MPNetForSequenceClassification, PreTrainedModel

from affinage.data.encoding import encode_texts
from affinage.errors import InputError
from affinage.evaluation.footprint import footprint
from affinage.models.checkpoint import Kind
from affinage.models.frozen_embeddings import load_frozen_embeddings, with_mean_first
from tiny import ARCHITECTURES, SENTENCES, save_tiny, tiny_tokenizer

LABELS = ("negative", "neutral", "positive")
KINDS: tuple[Kind, ...] = ("sequence", "pair", "token", "span")


def ids_of(architecture: str, text: str) -> Tensor:
    """(1, T)"""
    tokenizer = tiny_tokenizer(architecture).backend_tokenizer
    return torch.tensor(encode_texts(tokenizer, [text], max_length=48)[0].input_ids)[None]


def load(folder: Path, architecture: str, kind: Kind) -> PreTrainedModel:
    labels = () if kind == "span" else LABELS
    return load_frozen_embeddings(save_tiny(folder, architecture), kind, labels=labels, seed=3)


def outputs(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, …) logits; those of start and end side by side."""
    with torch.no_grad():
        output: Any = model(input_ids=ids, attention_mask=mask)
    return torch.stack([output.start_logits, output.end_logits], -1) if "start_logits" in output else output.logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_embeddings_and_head_are_what_is_left(tmp_path: Path, architecture: str, kind: Kind) -> None:
    model = load(tmp_path, architecture, kind)
    assert not [name for name in model.state_dict() if re.search(r"\.layer\.\d", name)]
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in model.state_dict() if ".embeddings." in name} & trained == set()
    assert trained == {name for name, _ in model.named_parameters() if ".embeddings." not in name}
    shape = footprint(model)
    assert (shape.layers, shape.encoder) == (0, 0)
    assert shape.parameters == shape.embeddings + shape.pooler + shape.head
    assert not model.training

    ids = ids_of(architecture, SENTENCES[0])
    model.save_pretrained(tmp_path / "saved")
    again = load_frozen_embeddings(tmp_path / "saved", kind)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(outputs(again, ids), outputs(model, ids))  # kernels go by how weights lie in memory
    assert torch.isfinite(outputs(model, ids)).all()


def embedded(state: dict[str, Tensor], ids: Tensor, offset: int) -> Tensor:
    """(B, T, H) by the formula: LayerNorm(word + position + type 0)."""
    table = {name.partition(".embeddings.")[2]: value for name, value in state.items() if ".embeddings." in name}
    total = table["word_embeddings.weight"][ids]
    total = total + table["position_embeddings.weight"][torch.arange(ids.shape[1]) + offset]
    if "token_type_embeddings.weight" in table:
        total = total + table["token_type_embeddings.weight"][0]
    return layer_norm(total, total.shape[-1:], table["LayerNorm.weight"], table["LayerNorm.bias"], eps=1e-12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_head_of_a_text_reads_the_mean_over_its_tokens(tmp_path: Path, architecture: str) -> None:
    model = load(tmp_path, architecture, "sequence")
    state = {name: value.double() for name, value in model.state_dict().items()}
    ids = ids_of(architecture, SENTENCES[0])
    mean = embedded(state, ids, 2 if architecture in ("camembert", "roberta") else 0).mean(dim=1)

    def through(name: str, inputs: Tensor) -> Tensor:
        return linear(inputs, state[f"{name}.weight"], state[f"{name}.bias"])

    if architecture == "bert":
        expected = through("classifier", through("bert.pooler.dense", mean).tanh())
    elif architecture == "distilbert":
        expected = through("classifier", relu(through("pre_classifier", mean)))
    else:
        expected = through("classifier.out_proj", through("classifier.dense", mean).tanh())
    torch.testing.assert_close(outputs(model, ids).double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_changes_nothing_whatever_fills_it(tmp_path: Path, architecture: str, kind: Kind) -> None:
    model = load(tmp_path, architecture, kind)
    ids = ids_of(architecture, SENTENCES[1])
    alone = outputs(model, ids)
    length = ids.shape[1]
    for seed in range(2):
        noise = torch.randint(5, 100, (1, 7), generator=torch.Generator().manual_seed(seed))
        mask = torch.cat([torch.ones_like(ids), torch.zeros_like(noise)], dim=1)
        padded = outputs(model, torch.cat([ids, noise], dim=1), mask)
        torch.testing.assert_close(padded if kind in ("sequence", "pair") else padded[:, :length], alone)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_two_texts_give_two_answers_and_tokens_keep_their_own(tmp_path: Path, architecture: str) -> None:
    one, two = (ids_of(architecture, text) for text in SENTENCES[:2])
    model = load(tmp_path, architecture, "sequence")
    assert not torch.allclose(outputs(model, one), outputs(model, two))
    tags = load(tmp_path, architecture, "token")
    assert torch.equal(outputs(tags, one)[:, 0], outputs(tags, two)[:, 0]), "the first token is the same in both"


def test_with_mean_first() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [50.0, 60.0]], [[1.0, 1.0], [2.0, 2.0], [6.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    given = hidden.clone()
    expected = torch.tensor([[[2.0, 3.0], [3.0, 4.0], [50.0, 60.0]], [[3.0, 4.0], [2.0, 2.0], [6.0, 9.0]]])
    assert torch.equal(with_mean_first(hidden, mask), expected)
    assert torch.equal(with_mean_first(hidden, None)[1], expected[1])
    assert torch.equal(hidden, given)


def test_the_head_starts_as_that_of_the_whole_model(tmp_path: Path) -> None:
    from affinage.models.checkpoint import load_task_model

    folder = save_tiny(tmp_path)
    whole = load_task_model(folder, "sequence", labels=LABELS, seed=3).state_dict()
    ours = load_frozen_embeddings(folder, "sequence", labels=LABELS, seed=3).state_dict()
    assert ours
    assert all(torch.equal(value, whole[name]) for name, value in ours.items())


def test_an_architecture_that_is_not_known_is_refused(tmp_path: Path) -> None:
    config = MPNetConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    MPNetForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="architecture 'mpnet' is not supported yet; known: albert, bert"):
        load_frozen_embeddings(tmp_path, "sequence", labels=LABELS)
