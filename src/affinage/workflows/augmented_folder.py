"""What `affinage augment` writes: rows in the form they were read in, block by block, and the finished folder."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from affinage.data.checksums import write_durably
from affinage.data.examples import Example
from affinage.distillation.augmentation.copies import Augmentation
from affinage.errors import InputError
from affinage.report.data_card import data_card
from affinage.report.report import Provenance
from affinage.workflows.labelled_data import TaskData
from affinage.workflows.teacher_labels import Said

TEACHER, ORIGIN = "teacher", "copy_of"
"""Columns that copies have: the teacher's probabilities, and where the original stands."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """How examples become rows: field -> column, as the data was read."""

    columns: Mapping[str, str]

    def __post_init__(self) -> None:
        """Raises: InputError where a column of the data has a name that copies need."""
        if taken := {TEACHER, ORIGIN} & set(self.columns.values()):
            raise InputError(f"a column of the data is called '{min(taken)}', as one that copies get; rename it")

    def original(self, example: Example) -> Row:
        """The row of an example of the data."""
        return {**self._texts(example), **self._label(_label_of(example))}

    def copy(self, example: Example, said: Said | None) -> Row:
        """The row of a copy; without the teacher's word it has no label, for it may not mean the same any more."""
        origin = {ORIGIN: example.where}
        if said is None:
            return {**self._texts(example), **origin}
        teacher = {} if said.probabilities is None else {TEACHER: said.probabilities}
        return {**self._texts(example), **self._label(said.label), **teacher, **origin}

    def _texts(self, example: Example) -> Row:
        fields = ("premise", "hypothesis") if "hypothesis" in self.columns else ("text",)
        return {self.columns[field]: text for field, text in zip(fields, texts_of(example), strict=True)}

    def _label(self, label: Any) -> Row:
        column = self.columns["labels" if "labels" in self.columns else "label"]
        return {column: list(label) if isinstance(label, tuple) else label}


def texts_of(example: Example) -> list[str]:
    """Its one text, or its two."""
    return [getattr(example, field) for field in _text_fields(example)]


def with_text(example: Any, place: int, text: str) -> Example:
    """The example with another text in one of its places."""
    changed: Example = replace(example, **{_text_fields(example)[place]: text})
    return changed


def _text_fields(example: Example) -> list[str]:
    return [field for field in ("text", "first", "second") if getattr(example, field, None) is not None]


def _label_of(example: Example) -> Any:
    return next(getattr(example, field) for field in ("label", "labels", "value") if hasattr(example, field))


@dataclass(frozen=True)
class Augmented:
    """What was made, and how."""

    out: str
    originals: int
    copies: int
    words: dict[str, int]
    """words drawn for the copies, by where their candidates came from (`copies.SOURCES`)"""
    language: str
    settings: Augmentation
    model: str
    pairs: bool
    """whether the model was given the text a second time, as it stands"""
    vectors: str
    """how many words have one, and from where"""
    teacher: str | None
    """that labelled the copies"""


class Blocks:
    """The copies of a run in files of some hundred originals each, so that it can be taken up where it stopped."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder

    def __contains__(self, number: int) -> bool:
        return self._path(number).is_file()

    def write(self, number: int, rows: Sequence[Row], counts: Mapping[str, int]) -> None:
        """`counts`: of the words drawn in it."""
        write_durably(self._path(number), json.dumps({"rows": rows, "counts": counts}, ensure_ascii=False))

    def rows(self) -> Iterator[Row]:
        """Those of all blocks, in order."""
        for block in self._read():
            yield from block["rows"]

    def counts(self) -> Counter[str]:
        """Those of all blocks together, and the number of `copies`."""
        total: Counter[str] = Counter()
        for block in self._read():
            total.update({**block["counts"], "copies": len(block["rows"])})
        return total

    def _read(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self._folder.glob("*.json")):
            yield json.loads(path.read_text(encoding="utf-8"))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08}.json"


def write_parts(folder: Path, data: TaskData, copies: Iterable[Row], form: Form, *, labelled: bool) -> None:
    """`train.jsonl` with the originals and, where they are `labelled`, the copies, which else are `unlabelled.jsonl`;
    the valid and test parts, copied where each is a file.
    """
    originals = map(form.original, data.train)
    write_rows(folder / "train.jsonl", originals)
    write_rows(folder / _copies_file(labelled=labelled), copies)
    for part, examples in (("valid", data.valid), ("test", data.test)):
        others = [*data.train, *(data.test if part == "valid" else data.valid)]
        sources = {_source(example) for example in examples}
        if len(sources) == 1 and (path := Path(min(sources))).is_file() and not sources & set(map(_source, others)):
            shutil.copyfile(path, folder / f"{part}{path.name[path.name.index('.') :]}")
        elif examples:  # a part of a part, or of the hub
            write_rows(folder / f"{part}.jsonl", map(form.original, examples))


def _source(example: Example) -> str:
    """The file or data set that it stands in."""
    return re.sub("[:#][^:#]*$", "", example.where)


def _copies_file(*, labelled: bool) -> str:
    return "train.jsonl" if labelled else "unlabelled.jsonl"


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add lines of JSON to a file."""
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_card(folder: Path, made: Augmented, conditions: Provenance) -> None:
    """`README.md` for people, `augmentation.json` for machines."""
    drawn = sum(made.words.values())
    facts = {
        "method": "Jiao et al. 2020 (TinyBERT), arXiv:1909.10351, algorithm 1",
        "fill-mask model": f"`{made.model}`" + (", the text given a second time as the second of a pair" * made.pairs),
        "word vectors": made.vectors,
        "copies of a text": f"at most {made.settings.copies}",
        "a word is replaced with probability": f"{made.settings.probability:g}",
        "candidates for a word": f"{made.settings.candidates}",
        "candidates came from": ", ".join(f"{source}: {n:,} of {drawn:,} words" for source, n in made.words.items()),
        "language": made.language,
        "labels of the copies": f"`{made.teacher}`" if made.teacher else "none",
    }
    copies = f"{made.copies:,} copies with words replaced"
    file = _copies_file(labelled=made.teacher is not None)
    labels = f", labelled by the teacher; `{TEACHER}` holds its probabilities" if made.teacher else ", without labels"
    about = (
        f"`train.jsonl`: {made.originals:,} labelled rows. `{file}`: {copies}{labels}; `{ORIGIN}` says where the "
        "original stands. "
    )
    about += "The other parts are as they were."
    card = data_card(Path(made.out).name, about=about, facts=facts, provenance=conditions)
    (folder / "README.md").write_text(card, encoding="utf-8")
    noted = {**asdict(made), "provenance": conditions.model_dump(mode="json")}
    (folder / "augmentation.json").write_text(json.dumps(noted, ensure_ascii=False, indent=1), encoding="utf-8")
