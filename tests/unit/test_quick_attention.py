"""Attention in training: the formula with the mask that was drawn, the precision of autocast, every kind of mask."""

import pytest
import torch
from torch import Tensor, nn

from affinage.models.attention import QUICK, quick_attention, quicken_attention_
from affinage.models.dropout import dropped
from tiny import tiny_model

B, A, T, D, P = 2, 4, 10, 6, 0.25


def drawn(*, keys: int = A) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(B, heads, T, D, generator=generator) for heads in (A, keys, keys))  # type: ignore[return-value]


def masks() -> dict[str, Tensor | None]:
    same = torch.block_diag(torch.ones(4, 4), torch.ones(6, 6)).bool()[None, None].expand(B, 1, T, T)
    return {"none": None, "bool": same, "added": torch.zeros(B, 1, T, T).masked_fill(~same, -1e4)}


@pytest.mark.parametrize("kind", ["none", "bool", "added"])
@pytest.mark.parametrize("keys", [A, 2])
def test_softmax_of_the_scores_dropped_times_the_values(kind: str, keys: int) -> None:
    mask = masks()[kind]
    query, key, value = (t.requires_grad_() for t in drawn(keys=keys))
    upstream = torch.randn(B, T, A, D)
    torch.manual_seed(5)
    kept = dropped(torch.ones(B, A, T, T), P).double()
    torch.manual_seed(5)
    found, weights = quick_attention(nn.Module(), query, key, value, mask, dropout=P, scaling=0.4)
    assert weights is None and found.shape == (B, T, A, D)
    got = torch.autograd.grad(found, (query, key, value), upstream)
    q, k, v = (t.detach().double().requires_grad_() for t in (query, key, value))
    wide = [t.repeat_interleave(A // keys, 1) for t in (k, v)]
    scores = torch.einsum("bhid,bhjd->bhij", q, wide[0]) * 0.4
    if mask is not None:
        scores = scores.masked_fill(~masks()["bool"], -torch.inf)  # type: ignore[operator]
    powers = (scores - scores.amax(-1, keepdim=True)).exp()
    expected = torch.einsum("bhij,bhjd->bihd", powers / powers.sum(-1, keepdim=True) * kept, wide[1])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(got, torch.autograd.grad(expected, (q, k, v), upstream.double()), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


def test_without_dropout_it_is_torchs() -> None:
    query, key, value = drawn()
    mask = masks()["bool"]
    found, _ = quick_attention(nn.Module(), query, key, value, mask, scaling=0.4)
    expected = nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=0.4).transpose(1, 2)
    torch.testing.assert_close(found, expected)


def test_a_backward_pass_in_bfloat16_is_that_of_the_formula() -> None:
    query, key, value = (t.bfloat16().requires_grad_() for t in drawn())
    mask, upstream = masks()["bool"], torch.randn(B, T, A, D)
    found, _ = quick_attention(nn.Module(), query, key, value, mask, scaling=0.4)
    assert "ScaledDotProduct" not in names_behind(found)  # torch's own is several times slower there
    got = torch.autograd.grad(found, (query, key, value), upstream.bfloat16())
    wide = [t.detach().double().requires_grad_() for t in (query, key, value)]
    exact = nn.functional.scaled_dot_product_attention(*wide, mask, scale=0.4).transpose(1, 2)
    torch.testing.assert_close(found.double(), exact, rtol=2e-2, atol=2e-2)
    for ours, theirs in zip(got, torch.autograd.grad(exact, wide, upstream.double()), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=5e-2, atol=5e-2)


def names_behind(result: Tensor) -> str:
    """Of all functions that autograd would go back through."""
    found, waiting = list[str](), [result.grad_fn]
    while waiting:
        function = waiting.pop()
        if function is not None:
            found.append(function.name())
            waiting += [before for before, _ in function.next_functions]
    return " ".join(found)


def test_bfloat16_stays_bfloat16() -> None:
    query, key, value = (t.bfloat16() for t in drawn())
    assert quick_attention(nn.Module(), query, key, value, None, dropout=P)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("architecture", ["camembert", "distilbert", "modernbert", "deberta-v2"])
def test_a_model_computes_as_before_and_is_saved_as_before(architecture: str, tmp_path: object) -> None:
    model = tiny_model(architecture).eval()
    ids = torch.arange(8)[None] + 5
    with torch.no_grad():
        before = model(input_ids=ids).logits
        stored = model.config.to_json_string()
        quicken_attention_(model)
        assert (model.config._attn_implementation == QUICK) == (architecture != "deberta-v2")
        torch.testing.assert_close(model(input_ids=ids).logits, before)
    assert model.config.to_json_string() == stored
