"""Seconds of training over all the pieces of an interrupted run."""

import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from affinage.data.checksums import write_durably


class Clock(TrainerCallback):
    """Adds up wall-clock seconds from the beginning of training; what was spent is noted beside each checkpoint."""

    def __init__(self, note: Path) -> None:
        self._note = note
        self._before = float(note.read_text(encoding="utf-8")) if note.is_file() else 0.0
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds spent so far."""
        return self._before + time.perf_counter() - self._began

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = time.perf_counter()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            write_durably(self._note, f"{self.seconds:.3f}")
