"""Promises of every registered loss, so that a newcomer's is checked before anyone reads it."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import affinage.losses  # noqa: F401  (registers every loss)
from affinage.distillation.objective import fit_losses, head_of
from affinage.errors import InputError
from affinage.losses.base import NEEDS, OfHeads, Shaped, distillation_losses
from affinage.signals import IGNORED, Batch, Head, Signals
from tiny import tiny_model

NAMES = [entry.name for entry in distillation_losses.entries()]
ZERO_AT_AGREEMENT = {
    "soft_kl",
    "reverse_soft_kl",
    "soft_jensen_shannon",
    "top_k_soft_kl",
    "cosine_distance",
    "hidden_mse",
    "attention_score_mse",
    "class_soft_kl",
    "multi_label_soft_kl",
    "regression_mse",
    "token_soft_kl",
    "span_soft_kl",
    "task_soft_kl",
    "attention_kl",
    "query_relation_kl",
    "key_relation_kl",
    "value_relation_kl",
    "patient_mse",
    "feature_map_mse",
}
LOGITS = {"token_soft_kl": "each token", "span_soft_kl": "start and end"}
"""of what the logits are, where they are not of a row"""
ROWS, TOKENS, WIDTH, VOCABULARY = 3, 7, 5, 11

every_loss = pytest.mark.parametrize("name", NAMES)


def a_batch(name: str = "") -> Batch:
    """Rows of 7, 4 and 2 real tokens; a third of them are to be guessed, or labels of rows, the second without one."""
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (ROWS, TOKENS), generator=random)
    mask = torch.arange(TOKENS) < torch.tensor([[7], [4], [2]])
    labels = torch.full_like(ids, IGNORED)
    guessed = mask & (torch.arange(TOKENS) % 3 == 1)
    labels[guessed] = ids[guessed]
    if name == "task_labels":
        labels = torch.tensor([2, IGNORED, 4])
    if name == "regression_hard_labels":
        labels = torch.tensor([0.5, torch.nan, -3.0])
    follows = torch.tensor([0, IGNORED, 1])
    return Batch(input_ids=ids, mask=mask, segments=mask.long(), labels=labels, follows=follows)


def signals_of(hidden: Tensor, weight: Tensor, bias: Tensor, batch: Batch, name: str = "") -> Signals:
    """Everything a loss may ask for of a model with two layers and one head, made of hidden states (3, B, T, H)."""
    layers = hidden[1:, :, None]
    logits = {"each token": hidden[-1] @ weight.t(), "start and end": hidden[-1] @ weight[:2].t()}
    return Signals(
        logits=logits.get(LOGITS.get(name, ""), hidden[-1][:, 0] @ weight.t()),
        next_sentence=hidden[-1][:, 0] @ weight[:2].t(),
        hidden_states=tuple(hidden),
        last_hidden_state=hidden[-1],
        queries=tuple(layers),
        keys=tuple(layers.flip(-1)),
        values=tuple(layers),
        head_input=hidden[-1][batch.head_positions],
        head_weight=weight,
        head_bias=bias,
    )


def leaves(seed: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = ((3, ROWS, TOKENS, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,))
    return [torch.randn(shape, generator=random).requires_grad_() for shape in shapes]


def value_of(name: str, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Tensor:
    loss = distillation_losses.build(name)
    return loss(signals_of(*student, batch, name), signals_of(*teacher, batch, name), batch).total


@every_loss
def test_the_sum_is_a_finite_scalar_and_the_count_that_of_its_positions(name: str) -> None:
    loss, batch = distillation_losses.build(name), a_batch(name)
    found = loss(signals_of(*leaves(2), batch, name), signals_of(*leaves(3), batch, name), batch)
    total, count = found.total, found.count
    positions = loss.positions(batch)
    assert total.shape == () and total.isfinite() and total != 0
    assert positions.shape == batch.mask.shape and positions.dtype == torch.bool
    assert count.shape == () and count == positions.sum() > 0
    assert not (positions & ~batch.mask).any()


@every_loss
def test_zero_at_agreement_exactly_where_the_documentation_says_so(name: str) -> None:
    batch, student = a_batch(name), leaves(2)
    at_agreement = value_of(name, student, student, batch).item()
    elsewhere = value_of(name, student, leaves(3), batch).item()
    is_divergence = name in ZERO_AT_AGREEMENT
    assert ("; 0 " in distillation_losses.entry(name).summary) == is_divergence
    assert (abs(at_agreement) < 1e-5) == is_divergence
    assert abs(elsewhere) > 0.1
    if is_divergence:
        assert elsewhere > at_agreement


@every_loss
def test_the_gradient_reaches_the_student_and_only_the_student(name: str) -> None:
    loss, batch, student, teacher = distillation_losses.build(name), a_batch(name), leaves(2), leaves(3)
    value_of(name, student, teacher, batch).backward()  # type: ignore[no-untyped-call]
    assert all(leaf.grad is None for leaf in teacher)
    hidden, weight, _ = student
    assert hidden.grad is not None and hidden.grad.isfinite().all()
    assert (hidden.grad.abs().sum((0, -1))[loss.positions(batch)] > 0).all()
    if "head" in loss.needs:
        assert weight.grad is not None and weight.grad.abs().sum() > 0


@every_loss
def test_nothing_reaches_the_loss_from_padding(name: str) -> None:
    loss, batch = distillation_losses.build(name), a_batch(name)
    clean = value_of(name, leaves(2), leaves(3), batch)
    student, teacher = leaves(2), leaves(3)
    with torch.no_grad():
        for hidden in (student[0], teacher[0]):
            hidden[:, ~batch.mask] = 9 * torch.randn(hidden[:, ~batch.mask].shape)
    ids = torch.where(batch.mask, batch.input_ids, torch.randint(VOCABULARY, batch.input_ids.shape))
    noisy = loss(signals_of(*student, batch, name), signals_of(*teacher, batch, name), replace(batch, input_ids=ids))
    assert torch.equal(noisy.total, clean)
    assert noisy.count == loss.positions(batch).sum()
    noisy.total.backward()  # type: ignore[no-untyped-call]
    assert student[0].grad is not None and not student[0].grad[:, ~batch.mask].any()


@pytest.mark.parametrize(
    "name", [n for n in NAMES if not {"logits", "next_sentence"} & distillation_losses.entry(n).component.needs]
)
def test_texts_packed_into_one_row_count_as_in_rows_of_their_own(name: str) -> None:
    """So noise in one of them leaves what the other counts as it was."""
    lengths = [4, 3]
    packed = replace(a_batch(name), mask=torch.ones(ROWS, TOKENS, dtype=torch.bool))
    packed = replace(packed, segments=torch.tensor([[1] * lengths[0] + [2] * lengths[1]] * ROWS))
    for noise in (0.0, 9.0):
        student, teacher = leaves(2), leaves(3)
        with torch.no_grad():
            for hidden in (student[0], teacher[0]):
                hidden[:, :, lengths[0] :] += noise * torch.randn(hidden[:, :, lengths[0] :].shape)
        alone = []
        for part in torch.arange(TOKENS).split(lengths):
            text = Batch(**{key: getattr(packed, key)[:, part] for key in ("input_ids", "mask", "labels")})
            ours, theirs = ([hidden[:, :, part], *head] for hidden, *head in (student, teacher))
            alone.append(value_of(name, ours, theirs, text).item())
        assert value_of(name, student, teacher, packed).item() == pytest.approx(sum(alone), rel=1e-5)


@every_loss
def test_the_order_of_the_rows_does_not_matter(name: str) -> None:
    batch, student, teacher = a_batch(name), leaves(2), leaves(3)
    order = torch.tensor([2, 0, 1])
    tensors: dict[str, Any] = {
        field.name: None if (value := getattr(batch, field.name)) is None else value[order] for field in fields(batch)
    }
    shuffled = [[hidden[:, order], *head] for hidden, *head in (student, teacher)]
    expected = value_of(name, student, teacher, batch)
    assert value_of(name, *shuffled, Batch(**tensors)).item() == pytest.approx(expected.item(), rel=1e-5)


@every_loss
def test_head_rows_of_another_selection_give_the_same_sum(name: str) -> None:
    """The objective selects the union of all losses' positions: a loss must find its own rows among them."""
    loss, batch = distillation_losses.build(name), a_batch(name)
    wider = replace(batch, selected=loss.positions(batch) | (torch.arange(TOKENS) == 0))
    expected = value_of(name, leaves(2), leaves(3), replace(batch, selected=loss.positions(batch)))
    assert value_of(name, leaves(2), leaves(3), wider).item() == pytest.approx(expected.item(), rel=1e-5)


@every_loss
def test_an_empty_batch_sums_to_zero(name: str) -> None:
    batch = a_batch(name)
    assert batch.labels is not None
    none = torch.nan if batch.labels.is_floating_point() else IGNORED
    batch = replace(batch, mask=torch.zeros_like(batch.mask), labels=torch.full_like(batch.labels, none))
    result = distillation_losses.build(name)(
        signals_of(*leaves(2), batch, name), signals_of(*leaves(3), batch, name), batch
    )
    assert (result.total.item(), result.count.item(), result.mean.item()) == (0, 0, 0)


@every_loss
def test_the_entry_says_what_it_is_and_whence_it_comes(name: str) -> None:
    entry = distillation_losses.entry(name)
    assert entry.source.strip() and entry.summary
    assert is_dataclass(entry.component) and entry.component.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert entry.component.needs | entry.component.teacher_needs <= NEEDS
    assert distillation_losses.build(name) == distillation_losses.build(name)


@every_loss
def test_an_unknown_parameter_is_named_with_those_there_are(name: str) -> None:
    known = [field.name for field in fields(distillation_losses.entry(name).component)]  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown parameter 'temprature'") as caught:
        distillation_losses.build(name, {"temprature": 1.0})
    assert str(caught.value).endswith(f"Known: {', '.join(sorted(known)) or 'none'}")
    with pytest.raises(InputError, match="unknown parameter 'needs'"):  # no parameter, though an attribute
        distillation_losses.build(name, {"needs": ["head"]})


def test_an_unknown_loss_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown loss 'soft-kl'\. Did you mean 'soft_kl'\?"):
        distillation_losses.build("soft-kl")


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0},
        {"temperature": -1},
        {"temperature": "warm"},
        {"temperature": float("inf")},
        {"tokens": "all"},
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(params: dict[str, Any]) -> None:
    (key,) = params
    with pytest.raises(InputError, match=f"loss 'soft_kl': {key}: "):
        distillation_losses.build("soft_kl", params)


def test_the_list_of_divergences_names_registered_losses() -> None:
    assert set(NAMES) >= ZERO_AT_AGREEMENT


@every_loss
def test_a_loss_on_a_tasks_logits_says_for_which_heads(name: str) -> None:
    loss = distillation_losses.build(name)
    if "logits" in loss.needs:
        assert isinstance(loss, OfHeads | Shaped)


@every_loss
@pytest.mark.parametrize("head", ["classes", "multi_label", "regression", "token", "span"])
def test_logits_of_another_kind_of_task_are_refused(name: str, head: Head) -> None:
    """With words; what is taken gives a finite sum, in which padding is nothing."""
    loss = distillation_losses.build(name)
    if "logits" not in loss.needs:
        return
    kind = {"token": "token", "span": "span"}.get(head, "sequence")
    problem = {"multi_label": "multi_label_classification", "regression": "regression"}.get(head)
    model = tiny_model("bert", kind, num_labels={"regression": 1, "span": 2}.get(head, 3), problem_type=problem)
    assert head_of(model) == head
    if head not in getattr(loss, "heads", {head}) and not isinstance(loss, Shaped):
        with pytest.raises(InputError, match=f"loss '{name}' is on the logits of"):
            fit_losses([loss], model, model)
        return
    (fitted,) = fit_losses([loss], model, model)
    labels = {
        "classes": torch.tensor([1, IGNORED, 2]),
        "multi_label": torch.tensor([[1.0, 0, 1]] * ROWS),
        "regression": torch.tensor([0.5, torch.nan, 2]),
        "token": torch.where(a_batch().labels == IGNORED, IGNORED, 1),
        "span": torch.tensor([[1, 1], [IGNORED, IGNORED], [0, 1]]),
    }[head]
    batch = replace(a_batch(), labels=labels)
    random = torch.Generator().manual_seed(3)
    shape = (ROWS, TOKENS, model.config.num_labels) if head in ("token", "span") else (ROWS, model.config.num_labels)
    ours, theirs = torch.randn(shape, generator=random), torch.randn(shape, generator=random)
    found = fitted(Signals(logits=ours), Signals(logits=theirs), batch)
    assert found.total.isfinite() and found.count > 0
    if head in ("token", "span"):
        noisy = torch.where(batch.mask[..., None], ours, 50 * torch.ones_like(ours))
        assert torch.equal(fitted(Signals(logits=noisy), Signals(logits=theirs), batch).total, found.total)
