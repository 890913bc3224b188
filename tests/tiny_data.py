"""Tiny corpora, labelled data and recipe overrides for runs of a few steps."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tiny import SENTENCES

STEPS = {
    "training.max_steps": "2",
    "training.batch_size": "4",
    "training.row_length": "48",
    "training.precision": "fp32",
    "training.evaluations": "2",
}
"""of every run"""
ON_TEXT = {**STEPS, "held_out": "0.1"}
"""of pre-training and distillation"""
SHAPE = {
    "student.num_hidden_layers": "4",
    "student.hidden_size": "16",
    "student.num_attention_heads": "2",
    "student.intermediate_size": "32",
    "student.max_length": "64",
    "student.tokenizer.vocab_size": "150",
}
"""of the model that pre-training makes: as `tiny.tiny_model`"""
TASKS = ("sentiment", "ner", "nli", "qa")


def settings(overrides: dict[str, str]) -> list[str]:
    """Overrides as options of the command line."""
    return [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]


def write_corpus(path: Path, *, lines: int = 60) -> Path:
    """A folder with one text file of different lines."""
    path.mkdir(parents=True)
    text = "".join(f"{SENTENCES[i % 10]} {SENTENCES[(3 * i + 1) % 10]} {i}\n" for i in range(lines))
    (path / "corpus.txt").write_text(text, encoding="utf-8")
    return path


def rows_of(task: str, count: int = 24) -> list[dict[str, Any]]:
    """Rows of a task made of the tests' own sentences, in the columns its YAML names."""
    return [_row(task, i) for i in range(count)]


def _row(task: str, i: int) -> dict[str, Any]:
    text = f"{SENTENCES[i % 10]} {i}"
    words = text.split()
    if task == "sentiment":
        return {"text": text, "label": i % 2}
    if task == "topics":
        return {"text": text, "labels": [name for name, every in (("two", 2), ("three", 3)) if i % every == 0]}
    if task == "rating":
        return {"text": text, "label": i % 5}
    if task == "nli":
        return {"premise": text, "hypothesis": SENTENCES[(i + 3) % 10], "label": i % 3}
    if task == "ner":
        return {"tokens": words, "tags": ["B-LOC" if w[0].isupper() else "O" for w in words]}
    answer = {"text": [words[1]], "answer_start": [text.index(words[1])]}
    return {"id": str(i), "question": "Quoi donc ?", "context": text, "answers": answer}


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A JSONL file."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_task(folder: Path, task: str) -> Path:
    """A folder with train, valid and test parts of eight rows each."""
    rows = rows_of(task)
    for part, start in (("train", 0), ("valid", 8), ("test", 16)):
        write_rows(folder / f"{part}.jsonl", rows[start : start + 8])
    return folder


def same_weights(first: Path, second: Path) -> bool:
    """Whether two model folders hold bitwise equal weights."""
    ours, theirs = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
