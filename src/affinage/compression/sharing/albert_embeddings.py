"""Embeddings as ALBERT has them: narrow, normalised while they are, then mapped to the width; and its narrow head."""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.models.layout import layout_of, position_offset, tensor_of

_ROWS = 8192
"""Of the embedding table, that are held in float64 at a time."""


@dataclass(frozen=True)
class Narrow:
    """Tensors of ALBERT's embeddings of width E, for hidden states of width H."""

    words: Tensor
    """(V, E)"""
    positions: Tensor
    """(P, E): those that a text uses, from its first token on"""
    types: Tensor
    """(t, E)"""
    gain: Tensor
    """(E,) of the LayerNorm"""
    shift: Tensor
    """(E,)"""
    widen: Tensor
    """(H, E)"""
    bias: Tensor
    """(H,)"""
    down: Tensor | None = None
    """(E, H) that makes narrow what the head compares with the words; None: its head is narrow already"""

    def put_(self, base: nn.Module) -> None:
        """Start an ALBERT's embeddings and the map behind them."""
        embeddings = base.get_submodule("embeddings")
        for name, value in {
            "word_embeddings.weight": self.words,
            "position_embeddings.weight": self.positions,
            "token_type_embeddings.weight": self.types,
            "LayerNorm.weight": self.gain,
            "LayerNorm.bias": self.shift,
        }.items():
            embeddings.get_parameter(name).copy_(value)
        base.get_parameter("encoder.embedding_hidden_mapping_in.weight").copy_(self.widen)
        base.get_parameter("encoder.embedding_hidden_mapping_in.bias").copy_(self.bias)

    def put_head_(self, model: PreTrainedModel, made: PreTrainedModel) -> None:
        """Start ALBERT's vocabulary head from that of `model`.

        A wider head is seen through `down`: exact but for the activation, which acts axis by axis.
        """
        layout, head = layout_of(model.config), made.get_submodule("predictions")
        weight, bias = (
            tensor_of(model, layout.head_dense).double(),
            tensor_of(model, layout.head_dense, "bias").double(),
        )
        gain, shift = (tensor_of(model, layout.head_norm, name).double() for name in ("weight", "bias"))
        if self.down is not None:
            down = self.down
            weight, bias, shift = down @ weight, down @ bias, down @ shift
            gain = torch.ones(len(down)).double() * gain.mean() * sqrt(down.shape[1] / down.shape[0])
        for name, value in {
            "dense.weight": weight,
            "dense.bias": bias,
            "LayerNorm.weight": gain,
            "LayerNorm.bias": shift,
            "bias": tensor_of(model, layout.decoder, "bias"),
            "decoder.bias": tensor_of(model, layout.decoder, "bias"),
        }.items():
            head.get_parameter(name).copy_(value)


def copied(model: PreTrainedModel) -> Narrow:
    """Of an ELECTRA whose embeddings are narrow: the same computation, nothing is approximate."""
    layout = layout_of(model.config)
    assert layout.token_type_embeddings is not None
    norm = layout.embedding_norm
    project = f"{layout.base}.embeddings_project"
    return Narrow(
        words=tensor_of(model, layout.word_embeddings),
        positions=tensor_of(model, layout.position_embeddings),
        types=tensor_of(model, layout.token_type_embeddings),
        gain=tensor_of(model, norm),
        shift=tensor_of(model, norm, "bias"),
        widen=tensor_of(model, project),
        bias=tensor_of(model, project, "bias"),
    )


def narrowed(model: PreTrainedModel, width: int) -> Narrow:
    """Of a model that normalises embeddings x (H,) at full width: gain · √H · c / |c| + shift, c = x less its mean.

    With P (H, E-1) the main directions of c, over words and positions, and B (E, E-1) orthonormal columns that are
    orthogonal to ones, B P^T c has mean 0 as ALBERT's LayerNorm wants it, and is mapped back by P B^T, gain and shift.
    So the start is exact where the c lie within P, and shrinks others to their part in it. `widen` makes up for the
    length that is lost on average.
    """
    layout = layout_of(model.config)
    words, every = tensor_of(model, layout.word_embeddings), tensor_of(model, layout.position_embeddings)
    positions = every[position_offset(model.config) :].double()
    types = torch.zeros(1, words.shape[1]).double()
    if layout.token_type_embeddings is not None:
        types = tensor_of(model, layout.token_type_embeddings).double()
    constant = positions.mean(0) + types[0]
    spread = positions - positions.mean(0)
    gram = centred(centred(spread.t() @ spread).t()) / len(positions)
    for part in torch.split(words, _ROWS):
        rows = centred(part.double() + constant)
        gram += rows.t() @ rows / len(words)
    values, vectors = torch.linalg.eigh(gram)
    main = vectors.flip(1)[:, : width - 1]
    kept = sqrt(float(values.flip(0)[: width - 1].sum() / values.sum()))
    down = orthogonal_to_ones(width) @ main.t()  # (E, H); its transpose maps back
    gain, shift = (tensor_of(model, layout.embedding_norm, name).double() for name in ("weight", "bias"))
    return Narrow(
        words=torch.cat([centred(part.double()) @ down.t() for part in torch.split(words, _ROWS)]),
        positions=centred(positions) @ down.t(),
        types=centred(types) @ down.t(),
        gain=torch.ones(width),
        shift=torch.zeros(width),
        widen=gain[:, None] * down.t() * sqrt(words.shape[1] / width) * kept,
        bias=shift,
        down=down,
    )


def centred(rows: Tensor) -> Tensor:
    """(n, H) less each row's mean."""
    return rows - rows.mean(-1, keepdim=True)


def orthogonal_to_ones(width: int) -> Tensor:
    """(E, E-1) float64: orthonormal columns, each with mean 0."""
    ones = torch.ones(width, 1, dtype=torch.float64)
    found: Tensor = torch.linalg.qr(torch.cat([ones, torch.eye(width, width - 1, dtype=torch.float64)], 1)).Q[:, 1:]
    return found
