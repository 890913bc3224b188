"""Writes the French mix of the shipped teacher from the shared corpora: corpus.py SHARED_FR OUT [--whole]."""

import argparse
import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

# corpus -> (megabytes taken of it, times it is read) of the short mix, of the whole mix; None: all of it.
# Modern text first: the tasks are modern, two thirds of the shared text are novels of the 18th to 20th century.
MIX: dict[str, tuple[tuple[float | None, int], tuple[float | None, int]]] = {
    "eltec-fra": ((34, 1), (None, 1)),
    "cligs-textbox": ((28, 1), (None, 1)),
    "roman18": ((6, 1), (20, 1)),
    "common-voice-sentences": ((None, 2), (None, 3)),
    "bucc2018-fr": ((None, 3), (None, 3)),
    "gouv-droit": ((None, 1), (None, 2)),
    "ud-french": ((None, 3), (None, 3)),
    "multi30k-fr-captions": ((None, 2), (None, 2)),
    "ms-sql-docs": ((3, 1), (15, 1)),
    "ms-visualstudio-docs": ((3, 1), (None, 1)),
    "ms-dynamics-docs": ((2, 1), (None, 1)),
    "php-doc": ((2, 1), (None, 1)),
    "dev-docs-misc": ((3, 1), (None, 1)),
    "fr-litbank-txt": ((None, 1), (None, 1)),
}
TASK_COPIES = 3
TAGS = re.compile(r" (?:Ag|Dd|Fw|Nc|Pp|Rg|Vuc|Vvc|Vvn) ")


def is_tagged(line: str) -> bool:
    """Whether each word is followed by its part of speech and lemma, as in some plays of cligs-textbox."""
    begin = line[:2000]
    return len(TAGS.findall(begin)) > max(5, len(begin) / 60)


def corpus(path: Path, megabytes: float | None) -> Iterator[str]:
    """Lines of a corpus in a fixed shuffled order, up to a size."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        lines = [line for line in stream if not is_tagged(line)]
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
        yield row["text"]
    for row in rows("ner/wikineural/train.jsonl.gz"):
        yield written(row["tokens"])
    seen = set()
    for row in rows("qa/piaf/train.jsonl.gz"):
        if row["context"] not in seen:
            seen.add(row["context"])
            yield row["context"]
        yield row["question"]
    for row in rows("nli/xnli/train.jsonl.gz"):
        if row["premise"] not in seen:
            seen.add(row["premise"])
            yield row["premise"]
        yield row["hypothesis"]


def written(tokens: list[str]) -> str:
    """Tokens as one would write them: no space behind an apostrophe nor before a point or comma."""
    return re.sub(r" (?=[.,)\]])|(?<=[(\[]) |(?<=\w') ", "", " ".join(tokens))


def main(fr: Path, out: Path, *, whole: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, mixes in MIX.items():
        megabytes, copies = mixes[whole]
        lines = list(corpus(fr / "corpus" / f"{name}.txt.gz", megabytes))
        (out / f"{name}.txt").write_text("".join(lines) * copies, encoding="utf-8")
    texts = "".join(f"{' '.join(text.split())}\n" for text in training_texts(fr))
    (out / "task-training-texts.txt").write_text(texts * TASK_COPIES, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fr", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--whole", action="store_true", help="the whole mix (about 50M tokens) for a GPU")
    given = parser.parse_args()
    main(given.fr, given.out, whole=given.whole)
