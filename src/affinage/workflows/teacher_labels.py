"""What a fine-tuned teacher says of new texts: a label for each, and how probable it finds every class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from affinage.data.examples import Example
from affinage.data.features import encode, stride_for
from affinage.data.task import Task
from affinage.decoding.labels import softmax
from affinage.errors import InputError
from affinage.models.checkpoint import check_fit, label_names, load_task_model, load_tokenizer, max_length, problem_of
from affinage.runtime.engine import TorchEngine

_BATCH = 32


class Said(NamedTuple):
    """Of one example."""

    label: Any
    """its most probable class; where there may be several, those more probable than not; in regression a number"""
    probabilities: dict[str, float] | None
    """of every class, in [0, 1]; None in regression"""


@dataclass(frozen=True, eq=False)
class TeacherLabels:
    """A fine-tuned model that labels texts and pairs of texts."""

    engine: TorchEngine
    tokenizer: PreTrainedTokenizerFast
    length: int
    """tokens it reads"""
    names: tuple[str, ...]
    """its classes in its order, spelt as in the data"""
    problem: str | None
    """the config's `problem_type`"""

    @classmethod
    def load(cls, teacher: str | Path, task: Task, labels: Sequence[str]) -> "TeacherLabels":
        """`labels`: those of the data; none in regression.

        Raises: InputError where the teacher cannot be read, is not fine-tuned, or knows other labels.
        """
        model = load_task_model(teacher, task.kind)
        if torch.accelerator.is_available():
            model.to(torch.accelerator.current_accelerator())  # type: ignore[arg-type]
        tokenizer = load_tokenizer(teacher)
        check_fit(tokenizer, model.config, where=teacher)
        config = model.config
        theirs = label_names(config)
        spelt = {label.casefold(): label for label in labels}
        problem = problem_of(config) or ("regression" if len(theirs) == 1 else None)
        if problem != "regression" and sorted(name.casefold() for name in theirs) != sorted(spelt):
            raise InputError(
                f"teacher '{teacher}' knows the labels {', '.join(theirs)}; those of the data are {', '.join(labels)}: "
                "give a teacher that was fine-tuned on this data"
            )
        mask_id = -1 if tokenizer.mask_token_id is None else tokenizer.mask_token_id
        return cls(
            engine=TorchEngine(model, pad_id=tokenizer.pad_token_id, mask_id=mask_id),
            tokenizer=tokenizer,
            length=min(max_length(config), tokenizer.model_max_length),
            names=tuple(spelt.get(name.casefold(), name) for name in theirs),
            problem=problem,
        )

    def __call__(self, examples: Sequence[Example]) -> list[Said]:
        """What it says of each, in order; it reads as much of a text as it takes."""
        encoder = self.tokenizer.backend_tokenizer
        rows = encode(encoder, examples, max_length=self.length, stride=stride_for(self.length))
        logits = dict(self.engine.logits(rows, batch_size=_BATCH))
        return [self._said(logits[i][0]) for i in range(len(rows))]

    def _said(self, logits: NDArray[np.float32]) -> Said:
        if self.problem == "regression":
            return Said(round(float(logits[0]), 6), None)
        several = self.problem == "multi_label_classification"
        values = 1 / (1 + np.exp(-logits.astype(np.float64))) if several else softmax(logits)
        probabilities = {name: round(float(value), 6) for name, value in zip(self.names, values, strict=True)}
        if several:
            return Said([name for name, value in zip(self.names, values, strict=True) if value > 0.5], probabilities)
        return Said(self.names[int(values.argmax())], probabilities)
