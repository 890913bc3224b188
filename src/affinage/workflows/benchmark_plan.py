"""What a benchmark will run: models checked and named, the cells to be timed and their rows."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from affinage.errors import InputError
from affinage.models.checkpoint import check_fit, load_tokenizer, max_length, read_config
from affinage.models.shipped import located
from affinage.report.report import ModelEntry, Report
from affinage.runtime.inputs import check_count
from affinage.runtime.workload import MIXED, SHORTEST, Padded, Vocabulary, batches, mixed_lengths, same_rows
from affinage.workflows.inspect import inspect

SEED = 0
"""of the random rows"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """What is timed in one go: the same texts by every model."""

    batch: int
    length: int | None
    """tokens of a text; None: the list of mixed lengths"""
    batches: tuple[tuple[Padded, ...], ...]
    """for every model"""

    @property
    def tokens(self) -> int:
        """Real tokens of a round; the same for every model."""
        return sum(batch.tokens for batch in self.batches[0])


@dataclass(frozen=True)
class Plan:
    """The models of a benchmark and what they are given."""

    names: tuple[str, ...]
    entries: tuple[ModelEntry, ...]
    cells: tuple[Cell, ...]
    """one a length, at batch 1"""
    mixed: Cell
    mixed_name: str
    """the list's file, and where its texts were cut"""
    texts: int
    """of the list"""


def plan(models: Sequence[str | Path], lengths: Sequence[int], *, batch_size: int) -> Plan:
    """Check everything that can be wrong but the weights. Raises: InputError."""
    configs = [read_config(model) for model in models]
    shapes = [inspect(model, length=1) for model in models]
    tokenizers = [load_tokenizer(model) for model in models]
    for model, tokenizer, config in zip(models, tokenizers, configs, strict=True):
        check_fit(tokenizer, config, where=model)
    names = distinct_names(models)
    longest = {name: max_length(config) for name, config in zip(names, configs, strict=True)}
    _check_lengths(lengths, longest)
    limit = min(longest.values())
    mixed = [min(length, limit) for length in mixed_lengths()]
    cut = limit < max(mixed_lengths())
    if cut:
        log.warning("texts of the mixed list are cut at %d tokens, all that one of the models takes", limit)
    vocabularies = [Vocabulary.of(*pair) for pair in zip(tokenizers, configs, strict=True)]

    def cell(texts: Sequence[int], batch: int, length: int | None) -> Cell:
        rows = same_rows(texts, vocabularies, seed=SEED)
        return Cell(
            batch,
            length,
            tuple(tuple(batches(r, size=batch, pad=v.pad)) for r, v in zip(rows, vocabularies, strict=True)),
        )

    return Plan(
        names=names,
        entries=tuple(
            ModelEntry(
                name=name,
                path=str(model),
                parameters=shape.parameters,
                layers=shape.layers,
                hidden_size=shape.hidden_size,
                size_bytes=shape.size_bytes,
                stored_as=shape.stored_as,
                base=_base(model),
            )
            for name, model, shape in zip(names, models, shapes, strict=True)
        ),
        cells=tuple(cell([length], 1, length) for length in lengths),
        mixed=cell(mixed, batch_size, None),
        mixed_name=f"{MIXED}, cut at {limit} tokens" if cut else MIXED,
        texts=len(mixed),
    )


def distinct_names(models: Sequence[str | Path]) -> tuple[str, ...]:
    """The last part of each path, or as many parts as tell it from the others; a model given again is numbered."""
    parts = [_parts(model) for model in models]
    names: list[str] = []
    for own in parts:
        others = [other for other in parts if other != own]
        counts = range(1, len(own) + 1)
        enough = next((k for k in counts if all(own[-k:] != other[-k:] for other in others)), len(own))
        name = "/".join(own[-enough:])
        again = parts[: len(names)].count(own)
        names.append(f"{name} ({again + 1})" if again else name)
    return tuple(names)


def _parts(model: str | Path) -> tuple[str, ...]:
    path = Path(located(model))
    return Path(os.path.abspath(path)).parts if path.is_dir() else path.parts


def _check_lengths(lengths: Sequence[int], longest: dict[str, int]) -> None:
    """Raises: InputError where a length is no number, given twice, too short, or more than a model takes."""
    if not lengths:
        raise InputError("lengths: give at least one, for example 16,64")
    for length in lengths:
        if check_count(length, "lengths") < SHORTEST:
            raise InputError(
                f"lengths: {length} is too short; a text has {SHORTEST} tokens at least, two of them special"
            )
    if len(set(lengths)) < len(lengths):
        raise InputError(f"lengths: {', '.join(map(str, lengths))}: each may be given once")
    short = [f"'{name}' takes at most {most} tokens" for name, most in longest.items() if most < max(lengths)]
    if short:
        fitting = [str(length) for length in lengths if length <= min(longest.values())]
        cure = f"choose others with --lengths {','.join(fitting) or min(longest.values())}"
        raise InputError(f"lengths: {max(lengths)} is too long: model {', model '.join(short)}; {cure}")


def _base(model: str | Path) -> str | None:
    """The model it was made from, where its folder's report says so."""
    try:
        report = Report.from_json((Path(located(model)) / "report.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, InputError):
        return None
    return report.models[0].base if report.models else None
