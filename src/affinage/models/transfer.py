"""How the weights of one model start another: embeddings, chosen layers and head, across architectures."""

import re
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.errors import InputError
from affinage.models.layout import layout_of, position_offset, tensor_of, widths_of
from affinage.models.parts import Layout

_LAYER_PARTS = (
    "query",
    "key",
    "value",
    "attention_output",
    "attention_norm",
    "intermediate",
    "output",
    "output_norm",
)


def layer_map(
    choice: Literal["spread", "even", "odd", "last", "first"] | Sequence[int], teacher: int, student: int
) -> tuple[int, ...]:
    """For each of `student` layers, the index from 0 of the teacher layer it starts from.

    spread: round(i (N - 1) / (M - 1)), which keeps the first and the last layer and gives the [0, 2, 4, 7, 9, 11] of
    DistilBERT's extraction script for 6 of 12; with more student than teacher layers it repeats layers.
    even: 0, 2, 4, …; odd: 1, 3, 5, … (the last of each pair); first: 0, 1, 2, …. A list is taken as it is.
    last: the last of each of M groups of layers, floor((i + 1) N / M) - 1, those that losses at equal distances compare
    with; 1, 3, 5, … for half the layers, as odd.

    Raises: InputError where the list has another length, leaves the teacher, or even/odd do not reach the depth.
    """
    if not isinstance(choice, str):
        chosen = tuple(choice)
        if len(chosen) != student:
            raise InputError(f"student.layers lists {len(chosen)} layers for a student of {student}")
    elif choice == "spread":
        step = (teacher - 1) / (student - 1) if student > 1 else 0.0
        chosen = tuple(int(i * step + 0.5) for i in range(student))
    elif choice == "last":
        chosen = tuple((i + 1) * teacher // student - 1 for i in range(student))
    elif choice == "first":
        chosen = tuple(range(student))
    else:
        chosen = tuple(2 * i + (choice == "odd") for i in range(student))
    if any(not 0 <= i < teacher for i in chosen):
        raise InputError(
            f"student.layers {choice if isinstance(choice, str) else list(chosen)} asks for teacher layers "
            f"{list(chosen)}; the teacher has layers 0 to {teacher - 1}"
        )
    return chosen


@torch.no_grad()
def copy_layers_(source: PreTrainedModel, target: PreTrainedModel, *, layers: Sequence[int]) -> None:
    """All of `source` into a `target` of its architecture and widths, layer i from layer `layers[i]`, bit by bit.

    Raises: InputError where a layer lacks what another has: the first of ModernBERT has no norm before its attention.
    """
    layout = layout_of(source.config)
    lists = "|".join(map(re.escape, (layout.layers, *layout.more_layers)))
    theirs = source.state_dict()
    for name, value in target.state_dict().items():
        origin = re.sub(rf"^({lists})\.(\d+)", lambda found: f"{found[1]}.{layers[int(found[2])]}", name)
        if origin not in theirs:
            raise InputError(
                f"student.layers {list(layers)}: '{origin}' is not in the starting model, whose first layer differs "
                "from the others: it can only start the first; begin the list with 0 and name 0 once"
            )
        value.copy_(theirs[origin])


@torch.no_grad()
def copy_outside_layers_(source: PreTrainedModel, target: PreTrainedModel) -> None:
    """Embeddings, vocabulary head and whatever else is no layer, into a `target` of the same architecture and width."""
    layout = layout_of(source.config)
    lists = tuple(f"{path}." for path in (layout.layers, *layout.more_layers))
    theirs = source.state_dict()
    for name, value in target.state_dict().items():
        if not name.startswith(lists):
            value.copy_(theirs[name])


@torch.no_grad()
def transfer_(
    source: PreTrainedModel,
    target: PreTrainedModel,
    *,
    layers: Sequence[int],
    pieces: Sequence[Sequence[int]] | None = None,
    head: bool = True,
) -> None:
    """Copy embeddings, layers (target layer i from source layer `layers[i]`) and vocabulary head into `target`.

    `pieces[new_id]` lists the source ids whose mean starts a new vocabulary's embedding; None: same vocabulary.
    A target without token types gets the source's type 0 added to its positions, so that both embed a text alike.

    Raises: InputError where the widths differ, or the parts of an architecture are not known one by one.
    """
    for model in (source, target):
        if not layout_of(model.config).whole:
            raise InputError(
                f"architecture '{model.config.model_type}': its weights can only start a student of the same "
                "architecture and widths"
            )
    ours, theirs = layout_of(target.config), layout_of(source.config)
    _check_widths(source, target)
    if head and target.config.tie_word_embeddings and not source.config.tie_word_embeddings:
        raise InputError(
            "the model to start from has a vocabulary projection of its own (tie_word_embeddings: false), which would "
            "be lost; give a model whose projection is its table"
        )
    _copy_word_embeddings(source, target, theirs, ours, pieces)
    _copy_positions(source, target, theirs, ours)
    _copy(source.get_submodule(theirs.embedding_norm), target.get_submodule(ours.embedding_norm))
    blocks_in, blocks_out = _blocks(source, theirs), _blocks(target, ours)
    for out, index in zip(blocks_out, layers, strict=True):
        for part in _LAYER_PARTS:
            _copy(
                blocks_in[index].get_submodule(getattr(theirs, part)),
                out.get_submodule(getattr(ours, part)),
            )
    if head:
        _copy(source.get_submodule(theirs.head_dense), target.get_submodule(ours.head_dense))
        _copy(source.get_submodule(theirs.head_norm), target.get_submodule(ours.head_norm))
        bias_in, bias_out = tensor_of(source, theirs.decoder, "bias"), tensor_of(target, ours.decoder, "bias")
        bias_out.copy_(bias_in if pieces is None else _mean_rows(bias_in[:, None], pieces)[:, 0])
    target.tie_weights()


def _blocks(model: PreTrainedModel, layout: Layout) -> list[nn.Module]:
    blocks = model.get_submodule(layout.layers)
    assert isinstance(blocks, nn.ModuleList)
    return list(blocks)


def _check_widths(source: PreTrainedModel, target: PreTrainedModel) -> None:
    widths = widths_of(source.config)
    for key, ours in widths_of(target.config).items():
        theirs = widths[key]
        if ours != theirs:
            raise InputError(
                f"{key} {ours} differs from the starting model's {theirs}: weights can only be copied between equal "
                f"widths; leave student.{key} out to take the starting model's"
            )


def _copy(source: nn.Module, target: nn.Module) -> None:
    target.load_state_dict(source.state_dict())


def _mean_rows(table: Tensor, pieces: Sequence[Sequence[int]]) -> Tensor:
    """(V', H): row i is the mean of the rows `pieces[i]` of `table` (V, H); the mean of all where there are none."""
    flat = torch.tensor([old for parts in pieces for old in parts], dtype=torch.long)
    owner = torch.tensor([new for new, parts in enumerate(pieces) for _ in parts], dtype=torch.long)
    counts = torch.bincount(owner, minlength=len(pieces)).clamp(min=1)
    sums = torch.zeros(len(pieces), table.shape[1]).index_add_(0, owner, table[flat].float())
    rows = sums / counts[:, None]
    rows[torch.tensor([not parts for parts in pieces])] = table.float().mean(0)
    return rows


def _copy_word_embeddings(
    source: PreTrainedModel,
    target: PreTrainedModel,
    theirs: Layout,
    ours: Layout,
    pieces: Sequence[Sequence[int]] | None,
) -> None:
    rows = tensor_of(source, theirs.word_embeddings)
    table = tensor_of(target, ours.word_embeddings)
    if pieces is not None:
        rows = _mean_rows(rows, pieces)
    if rows.shape != table.shape:
        raise InputError(f"the vocabularies differ: {rows.shape[0]} rows to copy, {table.shape[0]} in the new model")
    table.copy_(rows)


def _copy_positions(source: PreTrainedModel, target: PreTrainedModel, theirs: Layout, ours: Layout) -> None:
    """Positions by their meaning: the rows that no token uses are skipped; positions past the source's stay fresh."""
    begin_in, begin_out = position_offset(source.config), position_offset(target.config)
    if begin_in == begin_out:
        begin_in = begin_out = 0  # the unused rows too: the copy is then bit by bit the source's table
    rows = tensor_of(source, theirs.position_embeddings)[begin_in:]
    types = None
    if theirs.token_type_embeddings is not None:
        types = tensor_of(source, theirs.token_type_embeddings)
    if ours.token_type_embeddings is None:
        if types is not None:
            rows = rows + types[0]
    else:
        table = tensor_of(target, ours.token_type_embeddings)
        if types is None:
            table.zero_()
        else:
            n = min(len(types), len(table))
            table[:n].copy_(types[:n])
    table = tensor_of(target, ours.position_embeddings)[begin_out:]
    n = min(len(rows), len(table))
    table[:n].copy_(rows[:n])
