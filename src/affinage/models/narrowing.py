"""A narrower model started from a wider one of its architecture: its most important units, or singular directions."""

from math import sqrt
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, one_hot
from transformers import PreTrainedModel

from affinage.models.layout import depth_of, layout_of, tensor_of, widths_of
from affinage.models.parts import Layout

Narrowing = Literal["importance", "svd"]

_ROWS = 8192
"""Of the embedding table, that are held in float64 at a time."""


@torch.no_grad()
def narrow_(source: PreTrainedModel, target: PreTrainedModel, *, how: Narrowing) -> None:
    """Start `target` from `source`: the same architecture, vocabulary and depth, but a smaller width, fewer heads or a
    narrower feed-forward network. No data is needed, and what keeps its size is copied bit by bit.

    Hidden states x (H,) become P^T x (h,): what reads them is multiplied by P (H, h), what writes them by P^T.
    importance: P selects the h units with most energy in the weights that read or write them (Li et al. 2017,
    arXiv:1608.08710, rank filters by the norm of their weights). svd: P spans the h largest singular directions of the
    embedded vocabulary, turned within that span as near as can be to the axes that lie most in it. For LayerNorm and
    activations act axis by axis and do not commute with P: a gain becomes the diagonal of P^T diag(gain) P times the
    share of length that P keeps, and the start is approximate. Heads are kept by |W_v| |W_o|, feed-forward neurons by
    |w_in| |w_out|. Within a smaller head, q k^T and o v keep their largest dimensions (importance), or are
    approximated at the lower rank (svd). A larger head keeps its function: the new dimensions are read at random and
    written as 0.
    """
    layout, width = layout_of(source.config), widths_of(target.config)["hidden_size"]
    gram = _gram(source, layout)
    cut = _Cut(source, target, layout, _basis(source, layout, gram, width, how), how)
    if width < len(gram):
        cut.kept = sqrt(float((gram @ cut.basis * cut.basis).sum() / gram.trace()) * len(gram) / width)
    for table in (layout.word_embeddings, layout.position_embeddings, layout.token_type_embeddings):
        if table is not None:
            cut.table(table)
    cut.norm(layout.embedding_norm)
    for i in range(depth_of(source.config)):
        cut.attention(f"{layout.layers}.{i}.")
        cut.feed_forward(f"{layout.layers}.{i}.")
    cut.linear(layout.head_dense, cut.basis.t() @ cut.of(layout.head_dense) @ cut.basis)
    cut.norm(layout.head_norm)
    cut.put(layout.decoder, cut.of(layout.decoder, "bias"), "bias")
    if not source.config.tie_word_embeddings:
        cut.table(layout.decoder)
    target.tie_weights()


class _Cut:
    """The two models and the basis P (H, h), with what each kind of part becomes. Computed in float64."""

    def __init__(
        self, source: PreTrainedModel, target: PreTrainedModel, layout: Layout, basis: Tensor, how: Narrowing
    ) -> None:
        self.source, self.target, self.layout, self.basis, self.how = source, target, layout, basis, how
        self.kept = 1.0
        """length of a hidden state's part within P, for one of the length that LayerNorm gives"""

    def of(self, path: str, name: str = "weight") -> Tensor:
        return tensor_of(self.source, path, name).double()

    def put(self, path: str, value: Tensor, name: str = "weight") -> None:
        tensor_of(self.target, path, name).copy_(value)

    def table(self, path: str) -> None:
        ours, theirs = tensor_of(self.target, path), tensor_of(self.source, path)
        for start in range(0, len(theirs), _ROWS):
            rows = slice(start, start + _ROWS)
            ours[rows] = (theirs[rows].double() @ self.basis).to(ours.dtype)

    def norm(self, path: str) -> None:
        self.put(path, self.basis.square().t() @ self.of(path) * self.kept)
        self.put(path, self.basis.t() @ self.of(path, "bias"), "bias")

    def linear(self, path: str, weight: Tensor) -> None:
        """A map whose output is a hidden state."""
        self.put(path, weight)
        self.put(path, self.basis.t() @ self.of(path, "bias"), "bias")

    def feed_forward(self, layer: str) -> None:
        first, second = layer + self.layout.intermediate, layer + self.layout.output
        inner, outer = self.of(first), self.of(second)
        neurons = largest(inner.norm(dim=1) * outer.norm(dim=0), widths_of(self.target.config)["intermediate_size"])
        self.put(first, inner[neurons] @ self.basis)
        self.put(first, self.of(first, "bias")[neurons], "bias")
        self.linear(second, self.basis.t() @ outer[:, neurons])
        self.norm(layer + self.layout.output_norm)

    def attention(self, layer: str) -> None:
        q, k, v, o = (layer + getattr(self.layout, n) for n in ("query", "key", "value", "attention_output"))
        heads, size = self._heads(self.source)
        fewer, smaller = self._heads(self.target)
        # (A, D, H + 1): each head's map of hidden states, its bias as one more column
        read = {path: torch.cat([self.of(path) @ self.basis, self.of(path, "bias")[:, None]], 1) for path in (q, k, v)}
        parts = {path: rows.view(heads, size, -1) for path, rows in read.items()}
        mixed = (self.basis.t() @ self.of(o)).t().reshape(heads, size, -1)
        strength = self.of(v).view(heads, -1).norm(dim=1) * self.of(o).t().reshape(heads, -1).norm(dim=1)
        chosen = largest(strength, fewer)
        fresh = {path: self._rows(path, fewer) for path in (q, k, v)}
        made: dict[str, list[Tensor]] = {path: [] for path in (q, k, v, o)}
        for place, head in enumerate(chosen.tolist()):
            pairs = ((q, k, parts[q][head], parts[k][head]), (v, o, parts[v][head], mixed[head]))
            for first, second, left, right in pairs:
                if smaller < size:
                    left, right = lower_rank(left, right, smaller, self.how)
                elif smaller > size:
                    left = torch.cat([left, fresh[first][place, size:]])
                    right = torch.cat([right, torch.zeros(smaller - size, right.shape[1], dtype=right.dtype)])
                if first == q and smaller != size:
                    left = left * sqrt(smaller / size)  # scores are divided by the square root of the head size
                made[first].append(left)
                made[second].append(right)
        for path in (q, k, v):
            rows = torch.cat(made[path])
            self.put(path, rows[:, :-1])
            self.put(path, rows[:, -1], "bias")
        self.linear(o, torch.cat(made[o]).t())
        self.norm(layer + self.layout.attention_norm)

    def _heads(self, model: PreTrainedModel) -> tuple[int, int]:
        widths = widths_of(model.config)
        return widths["num_attention_heads"], widths["hidden_size"] // widths["num_attention_heads"]

    def _rows(self, path: str, heads: int) -> Tensor:
        """(a, d, h + 1): the target's own random start."""
        weight, bias = (tensor_of(self.target, path, name).double() for name in ("weight", "bias"))
        return torch.cat([weight, bias[:, None]], 1).view(heads, -1, weight.shape[1] + 1)


def largest(scores: Tensor, count: int) -> Tensor:
    """(count,) indices of the largest scores, in their own order; of equal ones the first."""
    return scores.sort(descending=True, stable=True).indices[:count].sort().values


def lower_rank(left: Tensor, right: Tensor, rank: int, how: Narrowing) -> tuple[Tensor, Tensor]:
    """(rank, m) and (rank, n) whose product left^T right comes near that of (D, m) and (D, n)."""
    if how == "importance":
        kept = largest(left.norm(dim=1) * right.norm(dim=1), rank)
        return left[kept], right[kept]
    (q_left, r_left), (q_right, r_right) = torch.linalg.qr(left.t()), torch.linalg.qr(right.t())
    u, s, v = torch.linalg.svd(r_left @ r_right.t())
    root = s[:rank].sqrt()[:, None]
    return root * (q_left @ u[:, :rank]).t(), root * (q_right @ v[:rank].t()).t()


def _basis(source: PreTrainedModel, layout: Layout, gram: Tensor, width: int, how: Narrowing) -> Tensor:
    """(H, h) float64: P."""
    if width == len(gram):
        return torch.eye(width, dtype=torch.float64)
    if how == "svd":
        span = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :width]
        axes = _selection(span.square().sum(1), width)
        left, _, right = torch.linalg.svd(span.t() @ axes)
        turned: Tensor = span @ left @ right
        return turned
    energy = torch.zeros(len(gram), dtype=torch.float64)
    readers = [layout.word_embeddings, layout.head_dense]
    writers = [layout.head_dense]
    for i in range(depth_of(source.config)):
        readers += [f"{layout.layers}.{i}.{p}" for p in (layout.query, layout.key, layout.value, layout.intermediate)]
        writers += [f"{layout.layers}.{i}.{p}" for p in (layout.attention_output, layout.output)]
    for paths, over in ((readers, 0), (writers, 1)):
        for path in paths:
            part = tensor_of(source, path).square().sum(over, dtype=torch.float64)
            energy += part / part.sum()
    return _selection(energy, width)


def _selection(scores: Tensor, count: int) -> Tensor:
    """(H, count): columns of the identity at the largest scores (H,)."""
    columns: Tensor = one_hot(largest(scores, count), len(scores)).double().t()
    return columns


def _gram(source: PreTrainedModel, layout: Layout) -> Tensor:
    """(H, H) float64: X^T X of the embedded vocabulary X (V, H), as the first layer sees it at a mean position."""
    constant = tensor_of(source, layout.position_embeddings).mean(0)
    if layout.token_type_embeddings is not None:
        constant = constant + tensor_of(source, layout.token_type_embeddings)[0]
    gain, bias = (tensor_of(source, layout.embedding_norm, name).double() for name in ("weight", "bias"))
    epsilon = source.get_submodule(layout.embedding_norm).eps
    assert isinstance(epsilon, float)
    table = tensor_of(source, layout.word_embeddings)
    gram = torch.zeros(table.shape[1], table.shape[1], dtype=torch.float64)
    for start in range(0, len(table), _ROWS):
        embedded = layer_norm(table[start : start + _ROWS].double() + constant, gain.shape, gain, bias, epsilon)
        gram += embedded.t() @ embedded
    return gram
