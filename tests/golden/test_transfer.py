"""Weights that start another model: bitwise where copied, the same hidden states where the shape allows it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.data.pieces import parts_in
from affinage.distillation.student import make_student
from affinage.errors import InputError
from affinage.models.build import fresh_masked_lm
from affinage.models.layout import LAYOUTS, layout_of
from affinage.models.transfer import transfer_
from affinage.recipe import StudentSpec
from tiny import ARCHITECTURES, SENTENCES, tiny_model, tiny_tokenizer

LAYERS = {  # written from transformers' module trees, not from our table
    "camembert": "roberta.encoder.layer",
    "roberta": "roberta.encoder.layer",
    "bert": "bert.encoder.layer",
    "distilbert": "distilbert.transformer.layer",
}
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def teacher(architecture: str, **config: Any) -> PreTrainedModel:
    """A tiny model whose every weight is random, biases and norms included: what is not copied shows."""
    model = tiny_model(architecture, **config)
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    return model


def rows(architecture: str) -> Tensor:
    return torch.tensor(tiny_tokenizer(architecture)(list(SENTENCES[:1])).input_ids)[:, :40]


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@torch.no_grad()
def hidden(model: PreTrainedModel, ids: Tensor, **inputs: Tensor) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = model(ids, output_hidden_states=True, **inputs).hidden_states
    return found


@every_architecture
def test_a_student_has_the_mapped_layers_bit_by_bit(architecture: str) -> None:
    source = teacher(architecture)
    student, layers = make_student(source, StudentSpec(layers=(3, 0)))
    assert layers == (3, 0)
    ours, theirs = (model.get_submodule(LAYERS[architecture]) for model in (student, source))
    assert isinstance(ours, nn.ModuleList) and isinstance(theirs, nn.ModuleList)
    assert len(ours) == 2
    assert [same(ours[0], layer) for layer in theirs] == [False, False, False, True]
    assert [same(ours[1], layer) for layer in theirs] == [True, False, False, False]
    rest, rest_of_teacher = (
        {k: v for k, v in model.state_dict().items() if not k.startswith(LAYERS[architecture])}
        for model in (student, source)
    )
    assert rest.keys() == rest_of_teacher.keys()
    assert all(torch.equal(rest[key], rest_of_teacher[key]) for key in rest)


@every_architecture
def test_a_student_of_full_depth_is_its_teacher_and_the_teacher_is_left_alone(architecture: str) -> None:
    source = teacher(architecture)
    before = {name: value.clone() for name, value in source.state_dict().items()}
    student, layers = make_student(source, StudentSpec(num_hidden_layers=4))
    assert layers == (0, 1, 2, 3)
    with torch.no_grad():
        ids = rows(architecture)
        assert torch.equal(student.eval()(ids).logits, source(ids).logits)
        next(student.parameters()).add_(1)
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())


@every_architecture
def test_head_and_embeddings_of_a_student_stay_one_tensor(architecture: str) -> None:
    student, _ = make_student(teacher(architecture), StudentSpec())
    layout = layout_of(student.config)
    decoder, words = student.get_submodule(layout.decoder), student.get_submodule(layout.word_embeddings)
    assert decoder.weight is words.weight
    assert student.config.to_dict()[layout.num_hidden_layers] == 2


def test_the_dropout_asked_for_is_the_students_and_else_the_teachers() -> None:
    source = teacher("distilbert", dropout=0.3, attention_dropout=0.3)
    kept, _ = make_student(source, StudentSpec())
    changed, _ = make_student(source, StudentSpec(dropout=0.0))
    assert (kept.config.dropout, changed.config.dropout, changed.config.attention_dropout) == (0.3, 0.0, 0.0)
    camembert, _ = make_student(teacher("camembert"), StudentSpec(dropout=0.2))
    assert (camembert.config.hidden_dropout_prob, camembert.config.attention_probs_dropout_prob) == (0.2, 0.2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"hidden_size": 8}, "hidden_size 8 differs from the teacher's 16"),
        ({"architecture": "bert"}, "architecture bert differs from the teacher's camembert"),
        ({"max_length": 32}, r"max_length: a student shares the teacher's"),
        ({"layers": (0, 4)}, "the teacher has layers 0 to 3"),
    ],
)
def test_more_than_copying_gives_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_student(teacher("camembert"), StudentSpec(**spec))


def test_widths_of_a_distilbert_teacher_go_by_their_common_names() -> None:
    same_width = StudentSpec(hidden_size=16, num_attention_heads=2, intermediate_size=32)
    make_student(teacher("distilbert"), same_width)
    with pytest.raises(InputError, match="intermediate_size 64 differs from the teacher's 32"):
        make_student(teacher("distilbert"), StudentSpec(intermediate_size=64))


def fresh(source: PreTrainedModel, architecture: str, *, layers: int = 4) -> PreTrainedModel:
    """A random model of another architecture with the source's widths and vocabulary."""
    spec = StudentSpec(
        architecture=architecture,
        num_hidden_layers=layers,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        max_length=64,
        dropout=0.0,
    )
    torch.manual_seed(3)
    return fresh_masked_lm(spec, tiny_tokenizer(source.config.model_type)).eval()


@pytest.mark.parametrize("target", ARCHITECTURES)
@every_architecture
def test_across_architectures_a_text_has_the_same_hidden_states_and_logits(architecture: str, target: str) -> None:
    """From any to any: position offset, token types and layer names differ, the function must not."""
    source = teacher(architecture)
    model = fresh(source, target)
    transfer_(source, model, layers=range(4))
    ids = rows(architecture)
    for ours, theirs in zip(hidden(model, ids), hidden(source, ids), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, source(ids).logits, rtol=1e-4, atol=1e-5)


def test_positions_keep_their_meaning_and_longer_tables_keep_fresh_rows() -> None:
    camembert = tiny_model("camembert")
    source = teacher("bert", max_position_embeddings=20, vocab_size=camembert.config.vocab_size)
    model = fresh(camembert, "camembert")
    positions = model.roberta.embeddings.position_embeddings.weight
    before = positions.clone()
    transfer_(source, model, layers=range(4))
    theirs = source.bert.embeddings.position_embeddings.weight
    assert torch.equal(positions[2:22], theirs)
    assert torch.equal(positions[:2], before[:2]) and torch.equal(positions[22:], before[22:])


def test_without_a_head_the_new_models_own_head_stays() -> None:
    source, model = teacher("camembert"), fresh(tiny_model(), "camembert")
    before = model.lm_head.dense.weight.clone()
    transfer_(source, model, layers=range(4), head=False)
    assert torch.equal(model.lm_head.dense.weight, before)
    assert same(model.roberta.encoder, source.roberta.encoder)


def test_layers_are_repeated_for_a_deeper_model() -> None:
    source, model = teacher("camembert"), fresh(tiny_model(), "camembert", layers=6)
    transfer_(source, model, layers=(0, 0, 1, 2, 3, 3))
    ours, theirs = model.roberta.encoder.layer, source.roberta.encoder.layer
    assert same(ours[1], theirs[0]) and same(ours[2], theirs[1]) and same(ours[5], theirs[3])


def test_other_widths_are_refused() -> None:
    with pytest.raises(InputError, match="hidden_size 16 differs from the starting model's 32"):
        transfer_(teacher("bert", hidden_size=32), tiny_model("bert"), layers=range(4))
    with pytest.raises(InputError, match="vocabularies differ"):
        transfer_(teacher("bert", vocab_size=40), tiny_model("bert"), layers=range(4))


@pytest.mark.parametrize("old", ["bert", "roberta"])
def test_a_new_vocabulary_starts_from_the_old_pieces(old: str) -> None:
    """Shared pieces bit by bit, others the mean of their parts, unknown ones the mean of all; the head's bias alike."""
    source = teacher(old)
    new_tokenizer = tiny_tokenizer("camembert")
    pieces = parts_in(tiny_tokenizer(old), new_tokenizer)
    pieces[-1] = []  # as a piece of letters that the old vocabulary has none of
    model = fresh(tiny_model("camembert"), "camembert")
    transfer_(source, model, layers=range(4), pieces=pieces)
    theirs = source.get_submodule(LAYOUTS[old].word_embeddings).weight.detach()
    bias = source.get_submodule(LAYOUTS[old].decoder).bias.detach()
    table, new_bias = model.roberta.embeddings.word_embeddings.weight.detach(), model.lm_head.decoder.bias.detach()
    assert table.shape[0] == len(pieces)
    single = [i for i, parts in enumerate(pieces) if len(parts) == 1]
    several = [i for i, parts in enumerate(pieces) if len(parts) > 1]
    assert len(single) > 20 and len(several) > 5
    for i in single:
        assert torch.equal(table[i], theirs[pieces[i][0]]) and new_bias[i] == bias[pieces[i][0]]
    for i in several:
        mean = sum(theirs[part].double() for part in pieces[i]) / len(pieces[i])
        torch.testing.assert_close(table[i].double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(table[-1], theirs.mean(0))
    torch.testing.assert_close(new_bias[-1], bias.mean())
    assert model.lm_head.decoder.weight is model.roberta.embeddings.word_embeddings.weight
    assert model.lm_head.bias is model.lm_head.decoder.bias
