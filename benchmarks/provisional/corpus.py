"""Writes the French mix of the provisional teacher, about 46 MB, from the shared corpora: corpus.py SHARED_FR OUT."""

import gzip
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

# corpus -> megabytes taken of it, lines shuffled with a fixed seed; None: all
MIX: dict[str, float | None] = {
    "eltec-fra": 7,
    "cligs-textbox": 5,
    "roman18": 3,
    "common-voice-sentences": None,
    "bucc2018-fr": None,
    "gouv-droit": None,
    "ud-french": None,
    "multi30k-fr-captions": None,
    "ms-sql-docs": 2,
    "ms-visualstudio-docs": 2,
    "ms-dynamics-docs": 1,
    "php-doc": 1,
    "dev-docs-misc": 1,
    "fr-litbank-txt": None,
}


def corpus(path: Path, megabytes: float | None) -> Iterator[str]:
    """Lines of a corpus, up to a size."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        lines = list(stream)
    random.Random(0).shuffle(lines)
    room = float("inf") if megabytes is None else megabytes * 1e6
    for line in lines:
        room -= len(line.encode())
        if room < 0:
            return
        yield line


def training_texts(fr: Path) -> Iterator[str]:
    """Texts of the tasks' training parts; never of their valid or test parts."""

    def rows(name: str) -> Iterator[dict[str, str]]:
        with gzip.open(fr / name, "rt", encoding="utf-8") as stream:
            yield from map(json.loads, stream)

    for row in rows("sentiment/reviews/train.jsonl.gz"):
        yield " ".join(row["text"].split())
    seen = set()
    for row in rows("qa/piaf/train.jsonl.gz"):
        if row["context"] not in seen:
            seen.add(row["context"])
            yield " ".join(row["context"].split())
    for row in rows("nli/xnli/train.jsonl.gz"):
        if row["premise"] not in seen:
            seen.add(row["premise"])
            yield row["premise"]
        yield row["hypothesis"]


def main(fr: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, megabytes in MIX.items():
        with (out / f"{name}.txt").open("w", encoding="utf-8") as stream:
            stream.writelines(corpus(fr / "corpus" / f"{name}.txt.gz", megabytes))
    with (out / "task-training-texts.txt").open("w", encoding="utf-8") as stream:
        stream.writelines(f"{line}\n" for line in training_texts(fr))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
