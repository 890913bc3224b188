"""Students of another width: which of the teacher's weights they keep, by formulas of NumPy's; bitwise again."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForMaskedLM, PreTrainedModel

from affinage.distillation.objective import fit_losses
from affinage.distillation.student import check_continued, make_student
from affinage.errors import InputError
from affinage.losses.base import distillation_losses
from affinage.models.checkpoint import load_masked_lm, load_tokenizer
from affinage.models.layout import widths_of
from affinage.models.narrowing import lower_rank
from affinage.recipe import StudentSpec
from tiny import ARCHITECTURES, SENTENCES, tiny_model, tiny_tokenizer

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
every_cut = pytest.mark.parametrize("init", ["importance", "svd"])
Floats = NDArray[np.float64]
LAYER = "roberta.encoder.layer.{}."


def teacher(architecture: str = "camembert", **config: Any) -> PreTrainedModel:
    """A tiny model whose every weight is random, norms' gains around 1."""
    model = tiny_model(architecture, **config)
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    return model


def student_of(source: PreTrainedModel, **spec: Any) -> PreTrainedModel:
    torch.manual_seed(11)
    return make_student(source, StudentSpec(**spec))[0].eval()


def rows(architecture: str = "camembert") -> Tensor:
    return torch.tensor(tiny_tokenizer(architecture)(list(SENTENCES[:1])).input_ids)[:, :40]


@torch.no_grad()
def logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    found: Tensor = model(ids).logits
    return found


def array(model: PreTrainedModel, name: str) -> Floats:
    found: Floats = model.state_dict()[name].double().numpy()
    return found


def top(scores: Floats, count: int) -> NDArray[np.int64]:
    return np.sort(np.argsort(-scores, kind="stable")[:count])


@every_architecture
@pytest.mark.parametrize("init", ["importance", "svd", "random"])
def test_each_shape_is_what_was_asked_for_again_bit_by_bit_and_loads_in_transformers(
    architecture: str, init: str, tmp_path: Path
) -> None:
    source = teacher(architecture)
    before = copy.deepcopy(source.state_dict())
    shape = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 24}
    made = student_of(source, init=init, num_hidden_layers=2, **shape)
    assert widths_of(made.config) == shape
    again = student_of(source, init=init, num_hidden_layers=2, **shape)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in made.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())
    assert made.get_output_embeddings().weight is made.get_input_embeddings().weight
    made.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert type(loaded) is type(source)
    assert torch.equal(logits(loaded, rows(architecture)), logits(made, rows(architecture)))


@every_cut
def test_of_equal_widths_a_cut_copies_bit_by_bit(init: str) -> None:
    source = teacher()
    copied, cut = student_of(source, layers=(3, 0)), student_of(source, layers=(3, 0), init=init)
    assert all(torch.equal(value, cut.state_dict()[name]) for name, value in copied.state_dict().items())


@every_cut
def test_the_strongest_neurons_are_kept_and_all_else_bit_by_bit(init: str) -> None:
    source = teacher()
    made = student_of(source, layers=(1, 2), init=init, intermediate_size=20)
    for ours, theirs in ((0, 1), (1, 2)):
        first, second = (LAYER.format(theirs) + part for part in ("intermediate.dense.", "output.dense."))
        inner, outer = array(source, first + "weight"), array(source, second + "weight")
        kept = top(np.linalg.norm(inner, axis=1) * np.linalg.norm(outer, axis=0), 20)
        mine, out = (LAYER.format(ours) + part for part in ("intermediate.dense.", "output.dense."))
        assert np.array_equal(array(made, mine + "weight"), inner[kept])
        assert np.array_equal(array(made, mine + "bias"), array(source, first + "bias")[kept])
        assert np.array_equal(array(made, out + "weight"), outer[:, kept])
        for name in ("attention.self.query.weight", "attention.output.LayerNorm.weight", "output.dense.bias"):
            assert np.array_equal(array(made, LAYER.format(ours) + name), array(source, LAYER.format(theirs) + name))


def test_the_units_with_most_energy_are_kept() -> None:
    source = teacher()
    words = array(source, "roberta.embeddings.word_embeddings.weight")
    energies = [(words**2).sum(0)]
    head = array(source, "lm_head.dense.weight") ** 2
    energies += [head.sum(0), head.sum(1)]
    for i in range(4):
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "intermediate.dense"):
            energies.append((array(source, f"{LAYER.format(i)}{part}.weight") ** 2).sum(0))
        for part in ("attention.output.dense", "output.dense"):
            energies.append((array(source, f"{LAYER.format(i)}{part}.weight") ** 2).sum(1))
    kept = top(sum(energy / energy.sum() for energy in energies), 10)
    made = student_of(source, num_hidden_layers=4, init="importance", hidden_size=10)
    assert np.array_equal(array(made, "roberta.embeddings.word_embeddings.weight"), words[:, kept])
    assert np.array_equal(
        array(made, "roberta.embeddings.position_embeddings.weight"),
        array(source, "roberta.embeddings.position_embeddings.weight")[:, kept],
    )
    assert np.array_equal(array(made, "lm_head.dense.weight"), array(source, "lm_head.dense.weight")[kept][:, kept])
    assert np.array_equal(array(made, "lm_head.bias"), array(source, "lm_head.bias"))
    norm = "roberta.encoder.layer.1.output.LayerNorm."
    gain = array(source, norm + "weight")[kept]
    ratio = array(made, norm + "weight") / gain
    np.testing.assert_allclose(ratio, np.sqrt(_energy_kept(source, np.eye(16)[:, kept]) * 16 / 10), rtol=1e-5)
    assert np.array_equal(array(made, norm + "bias"), array(source, norm + "bias")[kept])


def _embedded(source: PreTrainedModel) -> Floats:
    """(V, H) what the first layer sees of the vocabulary, at the mean of the positions."""
    name = "roberta.embeddings."
    summed = array(source, name + "word_embeddings.weight") + array(source, name + "position_embeddings.weight").mean(0)
    summed = summed + array(source, name + "token_type_embeddings.weight")[0]
    apart = summed - summed.mean(1, keepdims=True)
    scaled = apart / np.sqrt((apart**2).mean(1, keepdims=True) + source.config.layer_norm_eps)
    found: Floats = scaled * array(source, name + "LayerNorm.weight") + array(source, name + "LayerNorm.bias")
    return found


def _energy_kept(source: PreTrainedModel, basis: Floats) -> float:
    embedded = _embedded(source)
    return float(((embedded @ basis) ** 2).sum() / (embedded**2).sum())


def test_svd_takes_the_largest_singular_directions_of_the_embedded_vocabulary() -> None:
    source = teacher()
    span = np.linalg.svd(_embedded(source))[2][:10].T
    axes = np.eye(16)[:, top((span**2).sum(1), 10)]
    left, _, right = np.linalg.svd(span.T @ axes)
    basis = span @ left @ right
    made = student_of(source, num_hidden_layers=4, init="svd", hidden_size=10)
    words = array(source, "roberta.embeddings.word_embeddings.weight") @ basis
    found = array(made, "roberta.embeddings.word_embeddings.weight")
    np.testing.assert_allclose(found, words, rtol=1e-4, atol=1e-5)
    inner = array(source, LAYER.format(2) + "intermediate.dense.weight")
    ours = array(made, LAYER.format(2) + "intermediate.dense.weight")
    np.testing.assert_allclose(ours, inner @ basis, rtol=1e-4, atol=1e-5)
    norm = LAYER.format(2) + "output.LayerNorm."
    gain = np.diag(basis.T @ np.diag(array(source, norm + "weight")) @ basis)
    scale = np.sqrt(_energy_kept(source, basis) * 16 / 10)
    np.testing.assert_allclose(array(made, norm + "weight"), gain * scale, rtol=1e-4)
    np.testing.assert_allclose(array(made, norm + "bias"), basis.T @ array(source, norm + "bias"), atol=1e-6)


def test_within_a_head_svd_is_the_best_approximation_of_its_rank() -> None:
    random = np.random.default_rng(3)
    left, right = random.normal(size=(8, 11)), random.normal(size=(8, 13))
    u, s, v = np.linalg.svd(left.T @ right)
    best = u[:, :3] * s[:3] @ v[:3]
    short, narrow = lower_rank(torch.tensor(left), torch.tensor(right), 3, "svd")
    np.testing.assert_allclose((short.t() @ narrow).numpy(), best, atol=1e-10)
    kept, kept_too = lower_rank(torch.tensor(left), torch.tensor(right), 3, "importance")
    rows = top(np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1), 3)
    assert np.array_equal(kept, left[rows]) and np.array_equal(kept_too, right[rows])


@every_cut
def test_fewer_larger_heads_do_what_the_strongest_did(init: str) -> None:
    """Of 4 heads of 4, two remain, of size 8: as the teacher computes with the other two silenced."""
    source = teacher(num_attention_heads=4)
    made = student_of(source, num_hidden_layers=4, init=init, num_attention_heads=2)
    silenced = copy.deepcopy(source)
    for i in range(4):
        value = array(source, LAYER.format(i) + "attention.self.value.weight").reshape(4, -1)
        output = source.get_submodule(LAYER.format(i) + "attention.output.dense")
        mixed = array(source, LAYER.format(i) + "attention.output.dense.weight").T.reshape(4, -1)
        kept = top(np.linalg.norm(value, axis=1) * np.linalg.norm(mixed, axis=1), 2)
        weight = silenced.get_submodule(LAYER.format(i) + "attention.output.dense").weight
        with torch.no_grad():
            for head in set(range(4)) - set(kept.tolist()):
                weight[:, 4 * head : 4 * head + 4] = 0
        assert output.weight.abs().min() > 0
    torch.testing.assert_close(logits(made, rows()), logits(silenced, rows()), rtol=1e-4, atol=1e-5)
    loss = made(rows()).logits.square().mean()
    loss.backward()
    key = made.get_submodule(LAYER.format(1) + "attention.self.key").weight.grad
    assert key is not None and (key.abs().sum(1) > 0).all(), "the new dimensions learn"


def test_a_bert_and_the_distilbert_made_of_it_have_the_same_hidden_states(tmp_path: Path) -> None:
    source = teacher("bert", num_hidden_layers=6)
    made = student_of(source, architecture="distilbert", num_hidden_layers=6)
    assert made.config.model_type == "distilbert" and not any("pooler" in name for name, _ in made.named_modules())
    words = made.distilbert.embeddings
    types = source.bert.embeddings.token_type_embeddings.weight[0]
    assert torch.equal(words.position_embeddings.weight, source.bert.embeddings.position_embeddings.weight + types)
    with torch.no_grad():
        ours, theirs = (m(rows("bert"), output_hidden_states=True) for m in (made, source))
    for mine, other in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-5, atol=1e-6)
    half, layers = make_student(source, StudentSpec(architecture="distilbert"))
    assert (layers, half.config.n_layers) == ((0, 3, 5), 3)
    narrow = student_of(source, architecture="distilbert", init="importance", hidden_size=8)
    narrow.save_pretrained(tmp_path)
    assert AutoModelForMaskedLM.from_pretrained(tmp_path).config.dim == 8


def test_at_random_any_architecture_and_depth() -> None:
    source = teacher("camembert")
    spec = StudentSpec(architecture="bert", init="random", hidden_size=24, num_attention_heads=3, num_hidden_layers=5)
    made, layers = make_student(source, spec)
    assert (made.config.model_type, made.config.hidden_size, layers) == ("bert", 24, ())
    assert made.config.vocab_size == source.config.vocab_size and made.config.max_position_embeddings == 64
    assert made(rows()).logits.shape[-1] == source.config.vocab_size


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"hidden_size": 8}, "student.init 'layers' copies whole layers .* importance or svd"),
        ({"hidden_size": 9, "init": "svd"}, r"multiple of student.num_attention_heads 2 \(the teacher's\).*one of 1$"),
        ({"num_attention_heads": 3, "init": "random"}, "heads 3; set student.num_attention_heads to one of 1, 2"),
        ({"hidden_size": 32, "init": "importance"}, "exceeds the teacher's 16.* at most 16, or student.init=random"),
        ({"num_attention_heads": 4, "init": "svd"}, "num_attention_heads 4 exceeds the teacher's 2"),
        ({"architecture": "distilbert"}, "from bert to distilbert"),
    ],
)
def test_what_a_start_cannot_make_is_refused_with_its_cure(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_student(teacher(), StudentSpec(**spec))


def test_going_on_from_another_shape_is_refused() -> None:
    earlier = tiny_model(hidden_size=8)
    check_continued(StudentSpec(hidden_size=8, init="importance"), earlier)
    with pytest.raises(InputError, match="num_hidden_layers 3 differs from the 4 of the model to go on from"):
        check_continued(StudentSpec(num_hidden_layers=3), earlier)


@pytest.mark.parametrize("name", ["cosine_distance", "cosine_similarity"])
def test_a_cosine_between_unequal_widths_is_refused(name: str) -> None:
    source = teacher()
    loss = (distillation_losses.build(name),)
    assert fit_losses(loss, teacher(), source) == loss
    with pytest.raises(InputError, match=rf"loss '{name}': the student's width is 8, the teacher's 16.*hidden_mse"):
        fit_losses(loss, student_of(source, init="importance", hidden_size=8), source)


@pytest.mark.slow
def test_of_a_trained_teacher_both_cuts_start_nearer_than_a_random_student() -> None:
    """KL from the shipped teacher, 6 layers of 384, to students of half the width and feed-forward network."""
    source, tokenizer = load_masked_lm("shipped:teacher")[0], load_tokenizer("shipped:teacher")
    ids = tokenizer(list(SENTENCES[:5]), return_tensors="pt", padding=True)
    real = ids["attention_mask"].bool()
    hidden = torch.arange(real.shape[1]) % 7 == 3
    ids["input_ids"] = torch.where(real & hidden, tokenizer.mask_token_id, ids["input_ids"])

    @torch.no_grad()
    def log_p(model: PreTrainedModel) -> Tensor:
        found: Tensor = model(**ids).logits[real].log_softmax(-1)
        return found

    wanted = log_p(source)
    shape = {"num_hidden_layers": 6, "hidden_size": 192, "intermediate_size": 768}
    apart = {
        init: float((wanted.exp() * (wanted - log_p(student_of(source, init=init, **shape)))).sum(-1).mean())
        for init in ("random", "importance", "svd")
    }
    assert apart["importance"] < apart["random"] - 1 and apart["svd"] < apart["random"] - 1


@pytest.mark.parametrize("init", ["importance", "svd"])
def test_a_projection_of_its_own_is_narrowed_too(init: Any) -> None:
    source = teacher(tie_word_embeddings=False)
    made = student_of(source, init=init, hidden_size=8)
    assert not made.config.tie_word_embeddings
    ours, theirs = made.get_output_embeddings().weight, source.get_output_embeddings().weight
    table = made.get_input_embeddings().weight
    assert not torch.allclose(ours, table)
    # What the cut keeps of the projection is no more than there is, and not a random start's.
    assert 0.3 * theirs.norm() < ours.norm() <= 1.01 * theirs.norm()
