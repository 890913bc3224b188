"""Random models with a task's head, whose labels are those of `tiny_data`."""

from pathlib import Path
from typing import Any

from tiny import save_tiny

LABELS: dict[str, tuple[str, ...]] = {
    "sentiment": ("negative", "positive"),
    "nli": ("entailment", "neutral", "contradiction"),
    "ner": ("O", "B-LOC", "I-LOC"),
    "qa": (),
    "topics": ("three", "two"),
    "rating": ("value",),
}
HEADS = {
    "sentiment": "sequence",
    "nli": "pair",
    "ner": "token",
    "qa": "span",
    "topics": "sequence",
    "rating": "sequence",
}
_PROBLEMS = {"topics": "multi_label_classification", "rating": "regression"}


def tuned_teacher(folder: Path, task: str, architecture: str = "camembert", **config: Any) -> Path:
    """A model folder that stands for a fine-tuned one."""
    settings: dict[str, Any] = {"id2label": dict(enumerate(LABELS[task]))} if LABELS[task] else {}
    if task in _PROBLEMS:
        settings["problem_type"] = _PROBLEMS[task]
    return save_tiny(folder, architecture, HEADS[task], **{**settings, **config})
