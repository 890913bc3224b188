"""`affinage augment`: labelled data -> the same with changed copies of its training texts, for task distillation."""

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from affinage.data.corpus import corpus_files, corpus_lines, fingerprints
from affinage.data.examples import Example, resolve_columns
from affinage.data.task import Task, load_task
from affinage.distillation.augmentation.copies import SOURCES, Augmentation, Augmenter
from affinage.distillation.augmentation.fill_mask import FillMask
from affinage.distillation.augmentation.languages import language_named, language_of
from affinage.distillation.augmentation.train_vectors import train_vectors
from affinage.distillation.augmentation.vectors import WordVectors, read_vectors
from affinage.errors import InputError, legible
from affinage.models.checkpoint import check_fit, load_masked_lm, load_tokenizer, weights_fingerprint
from affinage.report.provenance import provenance
from affinage.training.run_folder import RunFolder, refuse_existing
from affinage.workflows.augmented_folder import (
    Augmented,
    Blocks,
    Form,
    texts_of,
    with_text,
    write_card,
    write_parts,
)
from affinage.workflows.labelled_data import data_fingerprints, training_data
from affinage.workflows.teacher_labels import TeacherLabels

log = logging.getLogger(__name__)

PAPER_COPIES = 20
CODE_COPIES = ((50_000, 30), (200_000, 20), (math.inf, 10))
"""Rows below which, copies: gives each GLUE task the number it has in the authors' code."""
MAX_COPIES = 1_000
_BLOCK = 128
"""Originals whose words are guessed together, and that are lost at most where a run is stopped."""
_REFUSED = {
    "token": "each word has a tag, and a candidate of several words, or of another kind, would not fit it",
    "span": "an answer is a span of its context, which would have to be found again in the changed text",
}


def augment(
    model: str | Path,
    *,
    task: str,
    data: str | Path,
    out: str | Path,
    copies: int | str = "paper",
    probability: float = 0.4,
    candidates: int = 15,
    vectors: str | Path | None = None,
    corpus: Sequence[str | Path] = (),
    language: str | None = None,
    teacher: str | Path | None = None,
    pairs: bool | None = None,
    row_length: int = 128,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
    command: str | None = None,
) -> Augmented:
    """Write `data` with changed copies of its training texts to the folder `out`, after TinyBERT.

    `model`: a masked language model, which guesses words. `copies`: of each text; "paper" (20), "code" (30, 20 or
    10, by the number of rows). `vectors`: a file of word vectors; without one they are trained on `corpus`, or on the
    training texts. `teacher`: a fine-tuned model that labels the copies; without one they go to `unlabelled.jsonl`.
    `pairs`: whether the model sees the text a second time, unmasked; None: where its architecture reads pairs.
    `row_length`: tokens around a masked one that it sees at most.

    Raises: InputError or DataError before any long work for whatever cannot be used; KeyboardInterrupt after Ctrl-C:
    the same call goes on from the last block.
    """
    began = time.perf_counter()
    refuse_existing(out, overwrite=overwrite)
    wanted = _augmentable(load_task(task))
    spoken = None if language is None else language_named(language)
    if vectors is not None and corpus:
        raise InputError(
            "word vectors are read from a file or trained on a corpus: give --vectors or --corpus, not both"
        )
    files: list[Path | str] = corpus_files(corpus) if corpus else []
    form = Form(resolve_columns(wanted, columns))
    known = None if vectors is None else read_vectors(Path(vectors))
    examples = training_data(wanted, data, columns=columns)
    settings = Augmentation(_copies(copies, len(examples.train)), probability, candidates, seed)
    spoken = spoken or language_of(_texts(examples.train))
    log.info("function words of the language '%s' stay; %d copies of a text", spoken.name, settings.copies)
    fill_mask = _fill_mask(model, row_length=row_length, pairs=pairs)
    if fill_mask.twice and pairs is None:
        log.info("the model sees the unmasked text too, as second text; if it was trained on single texts: --no-pairs")
    labels = None if teacher is None else TeacherLabels.load(teacher, wanted, examples.labels)
    if known is None:
        known = _trained(corpus_lines(files) if files else _texts(examples.train), seed)
    read = {**data_fingerprints(examples.sources), **fingerprints([*files, *([Path(vectors)] if vectors else [])])}
    identity = {
        "verb": "augment",
        "model": str(model),
        "weights": weights_fingerprint(model),
        "teacher": None if teacher is None else weights_fingerprint(teacher),
        "task": wanted.name,
        "data": read,
        "columns": form.columns,
        "language": spoken.name,
        "settings": {**asdict(settings), "row_length": row_length, "pairs": fill_mask.twice},
    }
    folder = RunFolder.open(Path(out), identity=identity, overwrite=overwrite)
    blocks = Blocks(folder.partial / "blocks")
    augmenter = Augmenter(fill_mask, known, spoken, settings)
    _fill(blocks, examples.train, augmenter, labels, form, quiet=quiet)
    counts = blocks.counts()
    origin = vectors or ", ".join(map(str, corpus)) or "the training texts"
    result = Augmented(
        out=str(out),
        originals=len(examples.train),
        copies=counts["copies"],
        words={source: counts[source] for source in SOURCES},
        language=spoken.name,
        settings=settings,
        model=str(model),
        pairs=fill_mask.twice,
        vectors=f"{0 if known is None else len(known.words):,} words, from {origin}",
        teacher=None if teacher is None else str(teacher),
    )
    conditions = provenance(
        command=command or f"affinage augment {model} --task {task} --data {data} --out {out}",
        seed=seed,
        recipe_sha256=None,
        data=read,
        seconds=time.perf_counter() - began,
    )

    def write(aside: Path) -> None:
        write_parts(aside, examples, blocks.rows(), form, labelled=labels is not None)
        write_card(aside, result, conditions)

    folder.finish(write)
    return result


def _augmentable(task: Task) -> Task:
    """Raises: InputError where labels stand on parts of the text."""
    if task.kind in _REFUSED:
        raise InputError(
            f"task '{task.name}' ({task.kind}) cannot be augmented: {_REFUSED[task.kind]}; distil it on its own texts, "
            "or on unlabelled ones"
        )
    return task


def _copies(value: int | str, rows: int) -> int:
    """The number asked for. Raises: InputError where it is none."""
    if value == "paper":
        return PAPER_COPIES
    if value == "code":  # its table of GLUE tasks, by their size
        return next(copies for most, copies in CODE_COPIES if rows < most)
    text = str(value)
    if not text.isdecimal() or not 1 <= int(text[:9]) <= MAX_COPIES:
        raise InputError(f"--copies '{legible(value)}': expected a number from 1 to {MAX_COPIES}, 'paper' or 'code'")
    return int(text)


def _texts(examples: Sequence[Example]) -> Iterator[str]:
    return (text for example in examples for text in texts_of(example))


def _fill_mask(name: str | Path, *, row_length: int, pairs: bool | None) -> FillMask:
    model, _ = load_masked_lm(name)
    tokenizer = load_tokenizer(name)
    check_fit(tokenizer, model.config, where=name)
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())  # type: ignore[arg-type]
    return FillMask(model, tokenizer, row_length=row_length, twice=pairs)


def _trained(lines: Iterable[str], seed: int) -> WordVectors | None:
    vectors = train_vectors(lines, seed=seed)
    if vectors is None:
        log.warning("the text is too small to train word vectors on: words of several pieces stay as they are")
    else:
        log.info("trained vectors of %s words", f"{len(vectors.words):,}")
    return vectors


def _fill(
    blocks: Blocks,
    examples: Sequence[Example],
    augmenter: Augmenter,
    labels: TeacherLabels | None,
    form: Form,
    *,
    quiet: bool,
) -> None:
    """Make the blocks that are not there yet."""
    console = Console(stderr=True, quiet=quiet)
    columns = (TextColumn("augmenting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    starts = range(0, len(examples), _BLOCK)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        for number, start in enumerate(bar.track(starts)):
            if number in blocks:
                continue
            originals = examples[start : start + _BLOCK]
            made = list(_copies_of(originals, augmenter, first=start))
            said = labels(made) if labels and made else [None] * len(made)
            blocks.write(
                number, [form.copy(copy, word) for copy, word in zip(made, said, strict=True)], augmenter.taken()
            )


def _copies_of(examples: Sequence[Example], augmenter: Augmenter, *, first: int) -> Iterator[Example]:
    """Every copy of every example; of a pair, copies with another first text and then with another second one."""
    for place in range(len(texts_of(examples[0]))):
        copies = augmenter.copies([texts_of(example)[place] for example in examples], first=first, part=place)
        for example, texts in zip(examples, copies, strict=True):
            yield from (with_text(example, place, text) for text in texts)
