"""Which parts of a model stay as they are while the rest is trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from transformers import PreTrainedModel

from affinage.errors import InputError
from affinage.models.layout import depth_of, layout_of


def check_freeze(freeze: Literal["encoder"] | int | None, student: PreTrainedModel) -> None:
    """Raises: InputError where freezing the first `freeze` layers of a student would leave none to train."""
    if freeze == "encoder":
        raise InputError("freeze: 'encoder' is for pre-training; give the number of layers to leave as they are")
    if freeze is not None and freeze >= depth_of(student.config):
        raise InputError(
            f"freeze: {freeze} of the student's {depth_of(student.config)} layers would leave none to train; give "
            f"0 (the embeddings alone) to {depth_of(student.config) - 1}, or leave it out"
        )


@contextmanager
def frozen_below(model: PreTrainedModel, freeze: Literal["encoder"] | int | None) -> Iterator[None]:
    """The embeddings and the first `freeze` layers take no gradient meanwhile, nor does a vocabulary projection that is
    tied to the embeddings. Where it is no number, all stays as it was.
    """
    parts = [*_embeddings(model), *_blocks(model)[:freeze]] if isinstance(freeze, int) else []
    still = [p for part in parts for p in part.parameters() if p.requires_grad]
    for parameter in still:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in still:
            parameter.requires_grad_(True)


def _blocks(model: PreTrainedModel) -> list[nn.Module]:
    return list(model.get_submodule(layout_of(model.config).layers).children())


def _embeddings(model: PreTrainedModel) -> list[nn.Module]:
    """The module that holds the word embeddings, or where that is the encoder itself, the tables and their norm."""
    layout = layout_of(model.config)
    parent = layout.word_embeddings.rpartition(".")[0]
    if parent != layout.base:
        return [model.get_submodule(parent)]
    paths = (layout.word_embeddings, layout.position_embeddings, layout.token_type_embeddings, layout.embedding_norm)
    return [model.get_submodule(path) for path in paths if path]
