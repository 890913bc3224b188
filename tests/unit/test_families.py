"""Every family: the stock model's own numbers, packed as alone, and students that are bit by bit their teachers."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import AutoModelForMaskedLM, PreTrainedModel

from affinage.distillation.objective import build_losses, fit_losses
from affinage.distillation.student import make_student
from affinage.errors import InputError
from affinage.evaluation.footprint import footprint
from affinage.models.encoder import forward_masked_lm
from affinage.models.frozen_embeddings import remove_encoder_
from affinage.models.layout import layout_of
from affinage.models.packed import NoCache
from affinage.recipe import Component, StudentSpec
from affinage.signals import Batch, Signals
from tiny import SENTENCES, tiny_model, tiny_tokenizer

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("xlm-roberta", {}),
    ("electra", {}),
    ("electra", {"embedding_size": 16}),
    ("flaubert", {}),
    ("flaubert", {"pre_norm": True}),
    ("albert", {}),
    ("albert", {"num_hidden_groups": 2}),
    ("deberta-v2", {}),
    ("deberta-v2", {"legacy": False, "share_att_key": False, "position_biased_input": True, "type_vocab_size": 2}),
    ("modernbert", {}),
    ("eurobert", {}),
    ("eurobert", {"tie_word_embeddings": True, "num_key_value_heads": 2}),
]
NAMES = ["-".join([family, *config]) for family, config in VARIANTS]
every_variant = pytest.mark.parametrize(("family", "config"), VARIANTS, ids=NAMES)
every_student = pytest.mark.parametrize(
    ("family", "config"),
    [variant for variant in VARIANTS if variant[0] != "albert"],
    ids=[name for name in NAMES if not name.startswith("albert")],
)
ALL = frozenset({"head", "hidden_states", "last_hidden_state", "queries", "keys", "values"})


def model_of(family: str, **config: Any) -> PreTrainedModel:
    """A tiny model whose every weight is random, biases and norms included."""
    model = tiny_model(family, **config)
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    return model


def texts(family: str) -> list[Tensor]:
    tokenizer = tiny_tokenizer(family)
    return [torch.tensor(tokenizer(" ".join(SENTENCES[i].split()[:n])).input_ids) for i, n in ((0, 7), (1, 3), (2, 5))]


def padded(parts: list[Tensor], pad_id: int) -> tuple[Tensor, Tensor]:
    """(B, T) ids and mask, one text a row, two pads at least."""
    ids = torch.nn.utils.rnn.pad_sequence([*parts, torch.zeros(max(map(len, parts)) + 2)], True, pad_id)[:-1].long()
    return ids, torch.arange(ids.shape[1]) < torch.tensor([len(part) for part in parts])[:, None]


def packed(parts: list[Tensor], pad_id: int) -> tuple[Tensor, Tensor]:
    """(1, T) ids and segments of all texts in one row, three pads behind."""
    ids = torch.cat([*parts, torch.full((3,), pad_id)])
    segments = torch.cat([torch.full_like(part, i) for i, part in enumerate(parts, 1)] + [torch.zeros(3)])
    return ids[None], segments.long()[None]


@torch.no_grad()
def stock(model: PreTrainedModel, ids: Tensor, **inputs: Any) -> Any:
    if getattr(model.config, "pre_norm", False):
        inputs["cache"] = NoCache()  # the one that stock code makes for itself breaks it
    return model(ids, output_hidden_states=True, **inputs)


@torch.no_grad()
def ours(model: PreTrainedModel, batch: Batch) -> Signals:
    return forward_masked_lm(model, batch, ALL)


def hidden_of(signals: Signals, where: Tensor) -> Tensor:
    assert signals.hidden_states is not None
    return torch.stack([layer[where] for layer in signals.hidden_states])


def logits_of(signals: Signals) -> Tensor:
    assert signals.head_input is not None and signals.head_weight is not None
    return linear(signals.head_input, signals.head_weight, signals.head_bias)


def hooks_of(model: PreTrainedModel) -> int:
    """How many there are: stock code has some of its own."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@every_variant
def test_states_and_logits_are_the_stock_models_alone_and_packed(family: str, config: dict[str, Any]) -> None:
    for attention in ("eager", "sdpa"):
        try:
            model = model_of(family, attn_implementation=attention, **config)
        except ValueError:
            assert attention == "sdpa" and family in ("flaubert", "deberta-v2")  # attention code of their own
            continue
        parts, pad_id = texts(family), model.config.pad_token_id
        ids, mask = padded(parts, pad_id)
        found, wanted = ours(model, Batch(ids, mask)), stock(model, ids, attention_mask=mask.long())
        close = {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(hidden_of(found, mask), torch.stack(wanted.hidden_states)[:, mask], **close)
        torch.testing.assert_close(logits_of(found), wanted.logits[mask], **close)
        assert found.hidden_states is not None and found.last_hidden_state is not None and found.queries is not None
        assert (len(found.hidden_states), len(found.queries)) == (5, 4)
        assert torch.equal(found.last_hidden_state[mask], found.hidden_states[-1][mask])
        row, segments = packed(parts, pad_id)
        hooks = hooks_of(model)
        together = ours(model, Batch(row, segments > 0, segments))
        alone = [stock(model, part[None]) for part in parts]
        states = [torch.cat([one.hidden_states[layer][0] for one in alone]) for layer in range(5)]
        torch.testing.assert_close(hidden_of(together, segments > 0), torch.stack(states), **close)
        torch.testing.assert_close(logits_of(together), torch.cat([one.logits[0] for one in alone]), **close)
        noise = torch.where(segments == 2, row, torch.randint_like(row, 5, model.config.vocab_size))
        again = ours(model, Batch(noise, segments > 0, segments))
        assert torch.equal(hidden_of(again, segments == 2), hidden_of(together, segments == 2))
        assert hooks_of(model) == hooks


@pytest.mark.parametrize("family", ["xlm-roberta", "electra", "flaubert", "albert"])
def test_queries_and_keys_give_the_stock_models_attention(family: str) -> None:
    model = model_of(family, attn_implementation="eager")
    ids, mask = padded(texts(family), model.config.pad_token_id)
    found = ours(model, Batch(ids, mask))
    wanted = stock(model, ids, attention_mask=mask.long(), output_attentions=True).attentions
    assert found.queries and found.keys and found.values
    for q, k, v, attention in zip(found.queries, found.keys, found.values, wanted, strict=True):
        scores = (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5
        torch.testing.assert_close(
            scores.masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)[mask[:, None].expand(-1, 2, -1)],
            attention[mask[:, None].expand(-1, 2, -1)],
            rtol=1e-4,
            atol=1e-5,
        )
        assert v.shape == q.shape


def test_queries_keys_and_values_of_the_others_are_their_projections() -> None:
    """Of the second layer: ModernBERT's one map in thirds, EuroBERT's shared keys once a head, DeBERTa's own alone."""
    model = model_of("modernbert")
    ids, mask = padded(texts("modernbert"), 0)
    found = ours(model, Batch(ids, mask))
    assert found.hidden_states and found.queries and found.keys and found.values
    layer = model.model.layers[1]
    joint = layer.attn.Wqkv(layer.attn_norm(found.hidden_states[1]))
    for signals, third in ((found.queries, 0), (found.keys, 1), (found.values, 2)):
        mine = signals[1].transpose(1, 2).flatten(2)
        torch.testing.assert_close(mine, joint[..., 16 * third : 16 * (third + 1)])
    model = model_of("eurobert")
    found = ours(model, Batch(ids, mask))
    assert found.hidden_states and found.queries and found.keys
    layer = model.model.layers[1]
    key = layer.self_attn.k_proj(layer.input_layernorm(found.hidden_states[1]))
    assert found.keys[1].shape == found.queries[1].shape == (3, 2, ids.shape[1], 8)
    for head in range(2):
        torch.testing.assert_close(found.keys[1][:, head], key)
    model = model_of("deberta-v2")
    found = ours(model, Batch(ids, mask))
    assert found.hidden_states and found.queries
    query = model.deberta.encoder.layer[1].attention.self.query_proj(found.hidden_states[1])
    torch.testing.assert_close(found.queries[1].transpose(1, 2).flatten(2), query)


@every_student
def test_a_student_of_full_depth_is_its_teacher_and_half_of_it_loads(
    family: str, config: dict[str, Any], tmp_path: Path
) -> None:
    teacher = model_of(family, **config)
    before = copy.deepcopy(teacher.state_dict())
    ids = texts(family)[0][None]
    whole, layers = make_student(teacher, StudentSpec(num_hidden_layers=4))
    assert layers == (0, 1, 2, 3)
    assert torch.equal(stock(whole.eval(), ids).logits, stock(teacher, ids).logits)
    half, layers = make_student(teacher, StudentSpec(dropout=0.0))
    assert layers == (0, 3) and (half.get_input_embeddings().weight is half.get_output_embeddings().weight) == (
        teacher.get_input_embeddings().weight is teacher.get_output_embeddings().weight
    )
    half.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert torch.equal(stock(loaded, ids).logits, stock(half.eval(), ids).logits)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    mine, theirs = footprint(half), footprint(teacher)
    assert mine.parameters == sum(p.numel() for p in half.parameters())
    assert mine.layers == 2 and mine.encoder < theirs.encoder
    narrow = teacher.config.embedding_size if family == "electra" else 16
    wider = 2 * 128 * narrow * 16 if narrow != 16 else 0  # the map from narrow embeddings is no layer's
    assert (mine.flops - wider) * 2 == theirs.flops - wider
    assert (mine.embeddings, mine.head) == (theirs.embeddings, theirs.head)


def test_modernbert_layers_keep_their_kind_of_attention() -> None:
    teacher = model_of("modernbert")
    student, _ = make_student(teacher, StudentSpec(layers=(0, 1, 3)))
    assert student.config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]
    assert torch.equal(student.model.layers[2].mlp.Wi.weight, teacher.model.layers[3].mlp.Wi.weight)
    with pytest.raises(InputError, match=r"first layer differs from the others.*begin the list with 0"):
        make_student(teacher, StudentSpec(layers=(3, 0)))


@pytest.mark.parametrize("family", ["electra", "flaubert", "deberta-v2", "modernbert", "eurobert"])
def test_narrower_at_random(family: str) -> None:
    shape = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 32}
    student, _ = make_student(model_of(family), StudentSpec(init="random", **shape))
    assert stock(student, texts(family)[0][None]).hidden_states[-1].shape[-1] == 8
    assert footprint(student).heads == 1


def test_an_electra_with_embeddings_of_its_width_is_cut() -> None:
    student, _ = make_student(model_of("electra", embedding_size=16), StudentSpec(init="importance", hidden_size=8))
    assert student.config.embedding_size == 8 and not hasattr(student.electra, "embeddings_project")


@pytest.mark.parametrize(
    ("family", "spec", "message"),
    [
        ("albert", {}, "share one layer's weights.*architecture=bert and student.init=random"),
        ("albert", {"architecture": "bert"}, "share one layer's weights"),
        ("flaubert", {"intermediate_size": 32, "init": "random"}, "4 times the hidden size, here 64; leave it out"),
        ("flaubert", {"hidden_size": 8, "init": "importance"}, "its parts are not known one by one; set student.init="),
        ("electra", {"hidden_size": 8, "init": "svd"}, "its embeddings have a width of their own"),
        ("eurobert", {"architecture": "distilbert"}, "from bert to distilbert"),
    ],
)
def test_a_student_that_makes_no_sense_is_refused_with_its_cure(
    family: str, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_student(model_of(family), StudentSpec(**spec))


def test_an_albert_teaches_a_bert() -> None:
    teacher = model_of("albert")
    student, layers = make_student(teacher, StudentSpec(architecture="bert", init="random"))
    assert layers == () and student.config.model_type == "bert" and student.config.num_hidden_layers == 2
    assert footprint(teacher).layers == 4


@pytest.mark.parametrize(
    ("family", "why"),
    [("deberta-v2", "relative positions are added"), ("modernbert", "turned"), ("eurobert", "turned")],
)
def test_attention_scores_that_are_not_products_alone_are_refused(family: str, why: str) -> None:
    model = model_of(family)
    with pytest.raises(InputError, match=f"loss 'attention_score_mse' .* in a '{family}' .*{why}"):
        fit_losses(build_losses([Component(name="attention_score_mse")], teacher=True), model, model)


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("deberta-v2", {"conv_kernel_size": 3}, "conv_kernel_size=3 is not supported: its convolution mixes"),
        ("albert", {"inner_group_num": 2}, "inner_group_num=2"),
        ("flaubert", {"n_langs": 2}, "n_langs=2"),
    ],
)
def test_variants_that_are_not_known_are_refused(family: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        layout_of(tiny_model(family, **config).config)


def test_a_baseline_without_an_encoder_is_made_of_some_families_only() -> None:
    with pytest.raises(InputError, match=r"no baseline without an encoder.*bert, camembert"):
        remove_encoder_(tiny_model("flaubert", "sequence"))
