"""The forward pass: the stock model's own numbers, and texts of a packed row that do not see each other."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import PreTrainedModel

from affinage.distillation.objective import Objective
from affinage.models.encoder import forward_masked_lm
from affinage.recipe import Component
from affinage.signals import IGNORED, Batch, Signals
from tiny import ARCHITECTURES, SENTENCES, tiny_model, tiny_tokenizer

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
every_attention = pytest.mark.parametrize("attention", ["sdpa", "eager"])
NEEDS = frozenset({"head", "hidden_states"})
LOUD = {"initializer_range": 0.3}  # what a text sees must show


def texts(architecture: str) -> list[Tensor]:
    """Three texts of different length, special tokens included."""
    tokenizer = tiny_tokenizer(architecture)
    return [torch.tensor(tokenizer(" ".join(SENTENCES[i].split()[:n])).input_ids) for i, n in ((0, 7), (1, 3), (2, 5))]


def padded(parts: list[Tensor], pad_id: int) -> tuple[Tensor, Tensor]:
    """(B, T) ids and mask, one text a row, at least two pads in every row."""
    length = max(map(len, parts)) + 2
    ids = torch.full((len(parts), length), pad_id)
    mask = torch.zeros(len(parts), length, dtype=torch.bool)
    for i, part in enumerate(parts):
        ids[i, : len(part)], mask[i, : len(part)] = part, True
    return ids, mask


def packed(parts: list[Tensor], pad_id: int, *, padding: int = 3) -> tuple[Tensor, Tensor]:
    """(1, T) ids and segments of all texts in one row."""
    ids = torch.cat([*parts, torch.full((padding,), pad_id)])
    segments = torch.cat([torch.full_like(part, i) for i, part in enumerate(parts, 1)] + [torch.zeros(padding)])
    return ids[None], segments.long()[None]


def loud(architecture: str, **config: Any) -> PreTrainedModel:
    return tiny_model(architecture, **LOUD, **config)


def hidden_of(signals: Signals, where: Tensor) -> Tensor:
    """(L + 1, N, H) hidden states of every layer at the marked places."""
    assert signals.hidden_states is not None
    return torch.stack([layer[where] for layer in signals.hidden_states])


def logits_of(signals: Signals) -> Tensor:
    assert signals.head_input is not None and signals.head_weight is not None
    return linear(signals.head_input, signals.head_weight, signals.head_bias)


@every_architecture
@torch.no_grad()
def test_logits_at_the_selected_places_are_the_stock_models(architecture: str) -> None:
    model = loud(architecture)
    with torch.random.fork_rng():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ids, mask = padded(texts(architecture), model.config.pad_token_id)
    selected = mask & (torch.arange(mask.shape[1]) % 2 == 1)
    found = forward_masked_lm(model, Batch(ids, mask, selected=selected), NEEDS)
    stock = model(ids, attention_mask=mask.long(), output_hidden_states=True)
    torch.testing.assert_close(logits_of(found), stock.logits[selected], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(hidden_of(found, mask), torch.stack(stock.hidden_states)[:, mask], rtol=1e-4, atol=1e-5)
    assert found.hidden_states is not None and len(found.hidden_states) == 5


@torch.no_grad()
def test_what_is_not_asked_for_is_not_computed() -> None:
    model = tiny_model("camembert")
    ids, mask = padded(texts("camembert"), 1)
    head = forward_masked_lm(model, Batch(ids, mask), frozenset({"head"}))
    assert head.hidden_states is None and head.head_input is not None
    assert head.head_input.shape == (int(mask.sum()), 16)
    hidden = forward_masked_lm(model, Batch(ids, mask), frozenset({"hidden_states"}))
    assert hidden.head_input is None and hidden.hidden_states is not None


@every_architecture
@torch.no_grad()
def test_queries_keys_and_values_give_the_stock_models_attention(architecture: str) -> None:
    model = loud(architecture, attn_implementation="eager")
    ids, mask = padded(texts(architecture), model.config.pad_token_id)
    needs = frozenset({"queries", "keys", "values", "last_hidden_state"})
    found = forward_masked_lm(model, Batch(ids, mask), needs)
    assert not any(module._forward_hooks for module in model.modules())
    stock = model(ids, attention_mask=mask.long(), output_attentions=True, output_hidden_states=True)
    assert found.queries and found.keys and found.values and found.last_hidden_state is not None
    assert found.hidden_states is None and found.head_input is None
    for q, k, v, attention in zip(found.queries, found.keys, found.values, stock.attentions, strict=True):
        scores = (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5
        ours = scores.masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)
        torch.testing.assert_close(ours, attention, rtol=1e-4, atol=1e-5)
        assert v.shape == q.shape
    torch.testing.assert_close(found.last_hidden_state[mask], stock.hidden_states[-1][mask], rtol=1e-4, atol=1e-5)


@every_architecture
@torch.no_grad()
def test_token_types_reach_the_models_that_know_them(architecture: str) -> None:
    model = loud(architecture, **({"type_vocab_size": 2} if architecture != "distilbert" else {}))
    ids, mask = padded(texts(architecture), model.config.pad_token_id)
    types = (torch.arange(ids.shape[1]) > 3).long().expand_as(ids).contiguous()
    found = hidden_of(forward_masked_lm(model, Batch(ids, mask, token_type_ids=types), NEEDS), mask)
    inputs = {} if architecture == "distilbert" else {"token_type_ids": types}
    stock = model(ids, attention_mask=mask.long(), output_hidden_states=True, **inputs).hidden_states
    torch.testing.assert_close(found, torch.stack(stock)[:, mask], rtol=1e-4, atol=1e-5)


@every_attention
@every_architecture
@torch.no_grad()
def test_packed_texts_are_what_they_are_alone(architecture: str, attention: str) -> None:
    """Against the stock model on each text by itself: attention stays inside a text, positions restart."""
    model = loud(architecture, attn_implementation=attention)
    assert model.config._attn_implementation == attention
    parts = texts(architecture)
    ids, segments = packed(parts, model.config.pad_token_id)
    found = forward_masked_lm(model, Batch(ids, segments > 0, segments), NEEDS)
    alone = [model(part[None], output_hidden_states=True) for part in parts]
    together = torch.stack(
        [torch.cat([one.hidden_states[layer][0] for one in alone]) for layer in range(len(alone[0].hidden_states))]
    )
    torch.testing.assert_close(hidden_of(found, segments > 0), together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits_of(found), torch.cat([one.logits[0] for one in alone]), rtol=1e-4, atol=1e-5)
    assert all(layer.isfinite().all() for layer in found.hidden_states or ())


@every_attention
@every_architecture
@torch.no_grad()
def test_noise_in_another_text_or_in_padding_changes_nothing(architecture: str, attention: str) -> None:
    model = loud(architecture, attn_implementation=attention)
    ids, segments = packed(texts(architecture), model.config.pad_token_id)
    clean = forward_masked_lm(model, Batch(ids, segments > 0, segments), NEEDS)
    for noisy in (1, 2, 3, 0):
        noise = torch.randint_like(ids, model.config.vocab_size)
        others = segments != noisy
        found = forward_masked_lm(model, Batch(torch.where(others, ids, noise), segments > 0, segments), NEEDS)
        kept = others & (segments > 0)
        assert torch.equal(hidden_of(found, kept), hidden_of(clean, kept))
        if noisy:
            assert not torch.equal(hidden_of(found, ~others), hidden_of(clean, ~others))


@every_architecture
@torch.no_grad()
def test_noise_in_the_padding_of_single_texts_changes_nothing(architecture: str) -> None:
    model = loud(architecture)
    ids, mask = padded(texts(architecture), model.config.pad_token_id)
    clean = forward_masked_lm(model, Batch(ids, mask), NEEDS)
    noisy = torch.where(mask, ids, torch.randint_like(ids, 5, model.config.vocab_size))
    found = forward_masked_lm(model, Batch(noisy, mask), NEEDS)
    assert torch.equal(hidden_of(found, mask), hidden_of(clean, mask))
    assert torch.equal(logits_of(found), logits_of(clean))


OBJECTIVE = (
    Component(name="soft_kl", weight=0.5),
    Component(name="cosine_distance", weight=0.3),
    Component(name="mlm", weight=0.2),
)


def labelled(ids: Tensor, segments: Tensor) -> dict[str, Tensor]:
    """Every third real token is to be guessed; which one depends on the place in the text alone."""
    labels = torch.full_like(ids, IGNORED)
    for row, number in {(r, int(n)) for r in range(len(ids)) for n in segments[r].unique() if n}:
        places = (segments[row] == number).nonzero()[1::3, 0]
        labels[row, places] = ids[row, places]
    return {"input_ids": ids, "segments": segments, "labels": labels}


@every_attention
@every_architecture
def test_packed_and_padded_training_give_the_same_losses_and_gradients(architecture: str, attention: str) -> None:
    teacher = (
        loud(architecture, num_hidden_layers=2) if architecture != "distilbert" else loud(architecture, n_layers=2)
    )
    student = loud(architecture, attn_implementation=attention)
    objective = Objective(student, OBJECTIVE, teacher=teacher).eval()
    parts, pad_id = texts(architecture), student.config.pad_token_id
    ids, mask = padded(parts, pad_id)
    results = []
    for batch in (labelled(*packed(parts, pad_id)), labelled(ids, mask.long())):
        student.zero_grad()
        counts = objective.counts(batch)
        loss, sums = objective(**batch, scales=objective.weights / counts)
        assert counts.tolist()[:2] == [int(mask.sum())] * 2 and 0 < counts[2] < counts[0]
        assert not sums.requires_grad
        torch.testing.assert_close(loss, (objective.weights * sums / counts).sum())
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
        results.append((sums, gradients))
    (sums, ours), (same_sums, theirs) = results
    torch.testing.assert_close(sums, same_sums, rtol=1e-4, atol=1e-5)
    assert ours.keys() == theirs.keys() and len(ours) > 60
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def test_the_losses_are_those_of_stock_logits() -> None:
    """The whole objective against plain formulas on the stock models' (B, T, V) logits."""
    teacher, student = loud("camembert", num_hidden_layers=2), loud("camembert")
    ids, mask = padded(texts("camembert"), 1)
    batch = labelled(ids, mask.long())
    with torch.no_grad():
        _, found = Objective(student, OBJECTIVE, teacher=teacher).eval()(**batch)
        ours, theirs = (m(ids, attention_mask=mask.long(), output_hidden_states=True) for m in (student, teacher))
    p, q = (m.logits[mask].double().div(2).softmax(-1) for m in (theirs, ours))
    a, b = (m.hidden_states[-1][mask].double() for m in (ours, theirs))
    guessed = batch["labels"] != IGNORED
    log_q = ours.logits[guessed].double().log_softmax(-1)
    expected = [
        4 * (p * (p / q).log()).sum(),
        (1 - (a * b).sum(-1) / a.norm(dim=-1) / b.norm(dim=-1)).sum(),
        -log_q.gather(-1, batch["labels"][guessed][:, None]).sum(),
    ]
    torch.testing.assert_close(found.double(), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_the_same_loss_twice_is_told_apart_by_name() -> None:
    twice = (Component(name="soft_kl"), Component(name="soft_kl", params={"tokens": "masked"}))
    assert Objective(tiny_model(), twice, teacher=tiny_model()).names == ("soft_kl", "soft_kl_2")


def test_a_batch_moves_whole() -> None:
    batch = replace(Batch(torch.ones(1, 2), torch.ones(1, 2)), labels=torch.ones(1, 2)).to(torch.device("meta"))
    assert batch.input_ids.is_meta and batch.labels is not None and batch.labels.is_meta and batch.segments is None
