"""Every loss against its paper's formula in NumPy float64, and the chunked computation against the plain one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

import affinage.losses.soft_labels as soft_labels
import affinage.losses.vocabulary as vocabulary
from affinage.losses.base import distillation_losses
from affinage.losses.likeliest import likeliest_suffice, packed, unpacked, width_of
from affinage.signals import IGNORED, Batch, Signals

Array = NDArray[np.float64]
ROWS, TOKENS, WIDTH, VOCABULARY = 2, 6, 4, 9


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def kl(p: Array, q: Array) -> float:
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True)))


def two_likeliest(shares: Array, teacher: Array) -> Array:
    """(3,) the shares of the teacher's two highest, and of all others together."""
    others, *best = np.split(np.argsort(teacher), [-2, -1])
    return np.array([*(shares[i].sum() for i in best), shares[others].sum()])


# name -> value at one token from the student's and the teacher's logits there and the temperature
BY_HAND: dict[str, Callable[[Array, Array, float], float]] = {
    "soft_kl": lambda s, t, tau: tau**2 * kl(softmax(t / tau), softmax(s / tau)),
    "reverse_soft_kl": lambda s, t, tau: tau**2 * kl(softmax(s / tau), softmax(t / tau)),
    "soft_cross_entropy": lambda s, t, tau: -(tau**2) * float(softmax(t / tau) @ np.log(softmax(s / tau))),
    "soft_jensen_shannon": lambda s, t, tau: (
        tau**2
        * (
            kl(softmax(s / tau), (softmax(s / tau) + softmax(t / tau)) / 2)
            + kl(softmax(t / tau), (softmax(s / tau) + softmax(t / tau)) / 2)
        )
        / 2
    ),
    "top_k_soft_kl": lambda s, t, tau: tau**2 * kl(*(two_likeliest(softmax(x / tau), t) for x in (t, s))),
}
TOP_K = {"top_k_soft_kl": {"top_k": 2}}
MASKS = {"all real": [[1] * 6] * 2, "padded": [[1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]]}


def drawn(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch_with(mask: str) -> Batch:
    real = torch.tensor(MASKS[mask], dtype=torch.bool)
    ids = torch.arange(ROWS * TOKENS).reshape(ROWS, TOKENS) % VOCABULARY
    labels = torch.full_like(ids, IGNORED)
    labels[0, 1], labels[0, 3], labels[1, 0] = 4, 0, 8
    return Batch(input_ids=ids, mask=real, labels=labels)


def signals(seed: int, batch: Batch) -> Signals:
    hidden = drawn(seed, 2, ROWS, TOKENS, WIDTH)
    return Signals(
        hidden_states=tuple(hidden),
        last_hidden_state=hidden[-1],
        head_input=hidden[-1][batch.head_positions],
        head_weight=drawn(seed + 10, VOCABULARY, WIDTH),
        head_bias=drawn(seed + 20, VOCABULARY),
    )


def logits_at(found: Signals, row: int, token: int) -> Array:
    """(V,) in float64, by the definition of a linear layer."""
    assert found.hidden_states is not None and found.head_weight is not None and found.head_bias is not None
    hidden = found.hidden_states[-1][row, token].double().numpy()
    logits: Array = found.head_weight.double().numpy() @ hidden + found.head_bias.double().numpy()
    return logits


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("tokens", ["real", "masked"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("name", BY_HAND)
def test_soft_labels(name: str, temperature: float, tokens: str, mask: str) -> None:
    batch = batch_with(mask)
    assert batch.labels is not None
    student, teacher = signals(1, batch), signals(2, batch)
    expected, count = 0.0, 0
    for row in range(ROWS):
        for token in range(TOKENS):
            counted = MASKS[mask][row][token] if tokens == "real" else int(batch.labels[row, token] != IGNORED)
            if counted:
                expected += BY_HAND[name](logits_at(student, row, token), logits_at(teacher, row, token), temperature)
                count += 1
    given = {"temperature": temperature, "tokens": tokens, **TOP_K.get(name, {})}
    found = distillation_losses.build(name, given)(student, teacher, batch)
    assert found.total.item() == pytest.approx(expected, rel=2e-5)
    assert found.mean.item() == pytest.approx(expected / count, rel=2e-5)


def test_masked_language_model() -> None:
    batch = batch_with("padded")
    student = signals(1, batch)
    expected = -sum(
        np.log(softmax(logits_at(student, row, token))[label])
        for row, token, label in ((0, 1, 4), (0, 3, 0), (1, 0, 8))
    )
    found = distillation_losses.build("mlm")(student, Signals(), batch)
    assert found.total.item() == pytest.approx(expected, rel=2e-5)
    assert found.count == 3


@pytest.mark.parametrize("mask", MASKS)
def test_cosine(mask: str) -> None:
    batch = batch_with(mask)
    student, teacher = signals(1, batch), signals(2, batch)
    assert student.hidden_states is not None and teacher.hidden_states is not None
    cosines = []
    for row, token in np.argwhere(np.array(MASKS[mask])):
        a, b = (s[-1][row, token].double().numpy() for s in (student.hidden_states, teacher.hidden_states))
        cosines.append(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))
    for name, expected in (("cosine_similarity", sum(cosines)), ("cosine_distance", sum(1 - c for c in cosines))):
        found = distillation_losses.build(name)(student, teacher, batch)
        assert found.total.item() == pytest.approx(expected, rel=1e-5)
        assert found.count == len(cosines)


def test_every_registered_loss_has_a_formula_here() -> None:
    between_layers = {"hidden_mse", "attention_score_mse"}  # test_tinybert_losses.py; test_relation_losses.py:
    between_layers |= {"attention_kl", "query_relation_kl", "key_relation_kl", "value_relation_kl", "patient_mse"}
    between_layers |= {"feature_map_mse"}
    of_pairs = {"nsp"}  # test_next_sentence.py
    here = {*BY_HAND, "mlm", "cosine_distance", "cosine_similarity"}
    of_tasks = {"task_labels", "task_soft_kl", "token_soft_kl", "span_soft_kl"}  # test_task_losses.py, as what follows
    of_tasks |= {"class_soft_kl", "class_soft_cross_entropy", "class_soft_cross_entropy_as_released"}
    of_tasks |= {"multi_label_soft_kl", "multi_label_soft_cross_entropy", "regression_mse", "regression_hard_labels"}
    assert {e.name for e in distillation_losses.entries()} == here | between_layers | of_tasks | of_pairs


@pytest.mark.parametrize("entries", [1, VOCABULARY * 3, VOCABULARY * 100])
@pytest.mark.parametrize("name", [*BY_HAND, "mlm"])
def test_chunks_change_neither_value_nor_gradient(name: str, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the same loss by autograd through all (n, V) logits at once, with chunks of 1, 3 and all tokens."""
    monkeypatch.setattr(vocabulary, "CHUNK_ENTRIES", entries)
    loss, batch = distillation_losses.build(name, TOP_K.get(name)), batch_with("padded")
    base, teacher = signals(1, batch), signals(2, batch)
    results = []
    for chunked in (True, False):
        assert base.head_input is not None and base.head_weight is not None and base.head_bias is not None
        leaves = [t.clone().requires_grad_() for t in (base.head_input, base.head_weight, base.head_bias)]
        if chunked:
            value = loss(replace(base, **dict(zip(HEAD, leaves, strict=True))), teacher, batch).total
        else:
            value = plain(loss, leaves, teacher, batch)
        gradients = torch.autograd.grad(3 * value, leaves)  # 3: what comes from above must be passed on
        results.append((value.detach(), *gradients))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("cached", [1, 3, 64])
@pytest.mark.parametrize("entries", [1, VOCABULARY * 2, VOCABULARY * 100])
def test_several_losses_at_once_are_their_weighted_sum(
    entries: int, cached: int, one_pass: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At all tokens, at some, at none of a chunk or of the cached rows of one, in any order; against plain autograd.

    In one pass too, as torch computes the function that is compiled elsewhere (test_compiled_kernels.py).
    """
    monkeypatch.setattr(soft_labels, "compiled", lambda function: function)
    monkeypatch.setattr(vocabulary, "CHUNK_ENTRIES", entries)
    monkeypatch.setattr(vocabulary, "CACHED_ROWS", cached)
    batch = batch_with("padded")
    base, teacher = signals(1, batch), signals(2, batch)
    assert base.head_input is not None and base.head_weight is not None and base.head_bias is not None
    named = [("soft_kl", {}), ("mlm", {}), ("soft_jensen_shannon", {"tokens": "masked"})]
    for order in ([0, 1, 2], [2, 1, 0], [1]):
        losses = [distillation_losses.build(*named[k]) for k in order]
        scales = torch.tensor([0.5, -0.2, 3.0])[: len(order)]
        results = []
        for joint in (True, False):
            leaves = [t.clone().requires_grad_() for t in (base.head_input, base.head_weight, base.head_bias)]
            student = replace(base, **dict(zip(HEAD, leaves, strict=True)))
            if joint:
                weighted, totals = vocabulary.vocabulary_sums(
                    losses,  # type: ignore[arg-type]
                    student,
                    teacher,
                    batch,
                    scales,
                    one_pass=one_pass,
                )
            else:
                each = [plain_at(loss, leaves, teacher, batch) for loss in losses]
                weighted, totals = sum(s * t for s, t in zip(scales, each, strict=True)), torch.stack(each).detach()
            results.append((weighted.detach(), totals, *torch.autograd.grad(weighted, leaves)))
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def plain_at(loss: Any, leaves: list[Tensor], teacher: Signals, batch: Batch) -> Tensor:
    """`plain` at the places of the loss alone."""
    taken = loss.positions(batch)[batch.mask]
    assert teacher.head_input is not None and batch.labels is not None
    part = replace(teacher, head_input=teacher.head_input[taken])
    there = replace(batch, mask=loss.positions(batch))
    return plain(loss, [leaves[0][taken], *leaves[1:]], part, there)


HEAD = ("head_input", "head_weight", "head_bias")


def plain(loss: Any, leaves: list[Tensor], teacher: Signals, batch: Batch) -> Tensor:
    logits = linear(*leaves)
    if hasattr(loss, "per_token"):
        assert teacher.head_input is not None and teacher.head_weight is not None
        total: Tensor = loss.per_token(logits, linear(teacher.head_input, teacher.head_weight, teacher.head_bias)).sum()
        return total
    assert batch.labels is not None
    return cross_entropy(logits, batch.labels[batch.mask], ignore_index=IGNORED, reduction="sum")


def test_a_gradient_by_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nudge of each entry of the student's head moves the loss as its gradient says."""
    monkeypatch.setattr(vocabulary, "CHUNK_ENTRIES", VOCABULARY)
    loss, batch = distillation_losses.build("soft_kl", {"temperature": 2.0}), batch_with("padded")
    student, teacher = signals(1, batch), signals(2, batch)
    assert student.head_weight is not None
    weight = student.head_weight.requires_grad_()
    loss(replace(student, head_weight=weight), teacher, batch).total.backward()
    base = weight.detach().double().numpy()
    for index in ((0, 0), (4, 2), (8, 3)):
        values = []
        for nudge in (1e-5, -1e-5):
            moved = base.copy()
            moved[index] += nudge
            there = replace(student, head_weight=torch.from_numpy(moved))
            values.append(
                sum(
                    BY_HAND["soft_kl"](logits_at(there, row, token), logits_at(teacher, row, token), 2.0)
                    for row, token in np.argwhere(np.array(MASKS["padded"]))
                )
            )
        assert weight.grad is not None
        assert weight.grad[index].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-3, abs=1e-4)


def test_under_bf16_autocast_value_and_gradient_stay_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "CHUNK_ENTRIES", VOCABULARY * 2)
    loss, batch = distillation_losses.build("soft_kl"), batch_with("all real")
    results = []
    for enabled in (True, False):
        student, teacher = signals(1, batch), signals(2, batch)
        assert student.head_input is not None and student.head_weight is not None
        leaves = (student.head_input.requires_grad_(), student.head_weight.requires_grad_())
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            total = loss(student, teacher, batch).total
        assert total.dtype == torch.float32
        gradients = torch.autograd.grad(total, leaves)
        assert all(g.dtype == torch.float32 for g in gradients)
        results.append((total.detach(), *gradients))
    for low, full in zip(*results, strict=True):
        assert (low - full).norm() < 0.02 * full.norm()


def test_a_head_without_bias_is_one_with_a_bias_of_zero() -> None:
    batch = batch_with("padded")
    student, teacher = signals(1, batch), signals(2, batch)
    without, zero = (replace(student, head_bias=bias) for bias in (None, torch.zeros(VOCABULARY)))
    loss = distillation_losses.build("soft_kl")
    assert torch.equal(loss(without, teacher, batch).total, loss(zero, teacher, batch).total)


@pytest.mark.parametrize("name", ["float32", "float16"])
@pytest.mark.parametrize("top_k", [1, 3, VOCABULARY - 1])
def test_the_likeliest_tokens_serve_as_the_teachers_head_does(top_k: int, name: str) -> None:
    """Kept in as few bits, read back, and other tokens' shares spread over them."""
    batch = batch_with("padded")
    loss = distillation_losses.build("top_k_soft_kl", {"temperature": 2.0, "top_k": top_k})
    student, teacher = signals(1, batch), signals(2, batch)
    kept = packed(teacher, top_k, 2.0)
    assert kept.shape == (int(batch.mask.sum()), width_of(top_k))
    read = unpacked(kept.to(getattr(torch, name)).float(), 2.0)
    found, online = (loss(student, of, batch).total for of in (Signals(likeliest=read), teacher))
    torch.testing.assert_close(found, online, rtol=1e-5 if name == "float32" else 5e-3, atol=1e-5)
    if top_k == VOCABULARY - 1:
        whole = distillation_losses.build("soft_kl", {"temperature": 2.0})(student, teacher, batch).total
        torch.testing.assert_close(online, whole, rtol=1e-5, atol=1e-5)


def test_ids_of_large_vocabularies_survive_half_precision() -> None:
    batch = batch_with("padded")
    size = 250_002
    teacher = replace(signals(2, batch), head_weight=drawn(3, size, WIDTH), head_bias=None)
    kept = packed(teacher, 4, 1.0).half().float()
    assert teacher.head_input is not None and teacher.head_weight is not None
    assert unpacked(kept, 1.0).ids.equal(linear(teacher.head_input, teacher.head_weight).topk(4).indices)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ([("top_k_soft_kl", {"top_k": 3}), ("mlm", {})], (3, 2.0)),
        ([("top_k_soft_kl", {"top_k": 3}), ("top_k_soft_kl", {"top_k": 5, "tokens": "masked"})], (5, 2.0)),
        ([("top_k_soft_kl", {"top_k": 300})], (9, 2.0)),
        ([("top_k_soft_kl", {"top_k": 3}), ("top_k_soft_kl", {"temperature": 1.0})], None),
        ([("top_k_soft_kl", {"top_k": 3}), ("cosine_distance", {})], None),
        ([("soft_kl", {})], None),
        ([("mlm", {})], None),
    ],
)
def test_when_the_likeliest_tokens_suffice(named: list[tuple[str, Any]], expected: Any) -> None:
    losses = [distillation_losses.build(name, given) for name, given in named]
    assert likeliest_suffice(losses, vocabulary=10) == expected
