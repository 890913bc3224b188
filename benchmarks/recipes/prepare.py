"""Lays out the working folder of the comparison: links to the data, slices of what is large, text, the encoder."""

import gzip
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from jobs import ALONE, AUGMENTED, LONGER

from affinage.models.english import english_teacher
from affinage.recipe import recipe_text

SLICES: Mapping[str, tuple[int, int | None]] = {"sst2": (8000, None), "squad": (6000, 3000)}
"""rows of the training and the dev part that are taken, the first ones of a fixed shuffle; None: all, as they come"""
EVERY = 3
"""of the English corpus every third paragraph is taken: some 28 MB, more than the budget reads"""
LINKS = {
    "en": {task: f"glue/{task}" for task in ("cola", "mrpc", "stsb", "rte", "wnli", "qqp", "qnli", "mnli")},
    "fr": {"reviews": "sentiment/reviews", "wikineural": "ner/wikineural", "piaf": "qa/piaf"},
}


FEW = 40
"""rows of a part in a trial; paragraphs of a text are fifty times as many"""


def prepare(shared: Path, work: Path, languages: Iterable[str], *, trial: bool = False) -> None:
    """Everything that the jobs of these languages read; what is there stays. A trial reads little of each."""
    if trial:
        shared = little(shared, work / "little", languages)
    work.mkdir(parents=True, exist_ok=True)
    for name, recipe in ((AUGMENTED, "tinybert-6"), (LONGER, ALONE)):
        text = recipe_text(recipe).replace(f"name: {recipe}", f"name: {name}", 1)
        (work / f"{name}.yaml").write_text(text, encoding="utf-8")
    for language in languages:
        folder = work / language
        folder.mkdir(exist_ok=True)
        for ours, theirs in LINKS[language].items():
            if not (folder / ours).is_symlink():
                (folder / ours).symlink_to(shared / language / theirs)
        (english if language == "en" else french)(shared / language, folder)


def english(shared: Path, folder: Path) -> None:
    for task, source in (("sst2", "glue/sst2"), ("squad", "squad/v1.1")):
        sliced(shared / source, folder / task, dict(zip(("train", "dev"), SLICES[task], strict=True)))
    if not (folder / "encoder").is_symlink():
        (folder / "encoder").symlink_to(english_teacher())
    corpus = folder / "corpus"
    if not corpus.exists():
        aside = fresh(corpus)
        for source in sorted((shared / "corpus").glob("*.txt.gz")):
            if not source.name.startswith("wikitext2"):  # for evaluation only
                with gzip.open(source, "rt", encoding="utf-8") as stream:
                    kept = [line for number, line in enumerate(stream) if number % EVERY == 0]
                (aside / source.name.removesuffix(".gz")).write_text("".join(kept), encoding="utf-8")
        aside.rename(corpus)


def french(shared: Path, folder: Path) -> None:
    if not (folder / "corpus").exists():
        script = Path(__file__).parent.parent / "teacher" / "corpus.py"
        subprocess.run([sys.executable, str(script), str(shared), str(folder / "corpus")], check=True)


def little(shared: Path, folder: Path, languages: Iterable[str]) -> Path:
    """A folder like `shared` with the first lines of every file."""
    sources = {
        "en": ("corpus", "squad/v1.1", "glue/sst2", *LINKS["en"].values()),
        "fr": ("corpus", *LINKS["fr"].values()),
    }
    for part in (f"{language}/{source}" for language in languages for source in sources[language]):
        for file in (shared / part).glob("*.gz"):
            (folder / part).mkdir(parents=True, exist_ok=True)
            with gzip.open(file, "rt", encoding="utf-8") as stream:
                lines = "".join(
                    line for line, _ in zip(stream, range(FEW * (50 if part.endswith("corpus") else 1)), strict=False)
                )
            (folder / part / file.name).write_bytes(gzip.compress(lines.encode(), mtime=0))
    return folder


def sliced(source: Path, folder: Path, rows: Mapping[str, int | None]) -> None:
    """A folder with so many rows of each part."""
    if folder.exists():
        return
    aside = fresh(folder)
    for part, most in rows.items():
        some(source / f"{part}.jsonl.gz", aside / f"{part}.jsonl.gz", most)
    aside.rename(folder)


def some(source: Path, to: Path, most: int | None) -> None:
    """The first rows of a fixed shuffle; None: the file as it is."""
    if most is None:
        shutil.copy(source, to)
        return
    with gzip.open(source, "rt", encoding="utf-8") as stream:
        lines = stream.read().splitlines()
    random.Random(0).shuffle(lines)
    to.write_bytes(gzip.compress(("\n".join(lines[:most]) + "\n").encode(), mtime=0))


def fresh(folder: Path) -> Path:
    """An empty folder beside this one, which it becomes when it is whole."""
    aside = folder.with_name(f"{folder.name}.making")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside
