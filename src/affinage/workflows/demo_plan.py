"""How much the demo can train within its minutes on this machine: measured first, then shared out."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from affinage.data.examples import Example, read_examples
from affinage.data.features import encode, stride_for
from affinage.data.readers import find_parts
from affinage.data.task import load_task
from affinage.models.checkpoint import max_length
from affinage.training.allocator import keep_big_buffers

DISTIL_ROWS, DISTIL_LENGTH = 16, 128
DISTIL_TOKENS = DISTIL_ROWS * DISTIL_LENGTH
"""of a distillation step"""
_PROBE = (16, 64)
"""rows and tokens of the steps that measure the machine"""
_FIXED_SECONDS, _FIXED_SECONDS_A_TASK = 60, 12
"""that loading, saving, scoring, starting fresh processes and writing the report take on two cores"""
_LEAST_FREE = 0.3
"""of the demo's time that is shared out, however short it is"""
_DISTIL_SHARE, _TUNE_SHARE, _BENCHMARK_SHARE = 0.25, 0.6, 0.07
"""of the time that is left; the rest is for what takes longer than it should"""
_STUDENT, _BASELINE, _DISTIL, _HEAD = 0.6, 0.1, 1.5, 0.6
"""time of a student's, a baseline's, a distillation's and a head's step, in steps of the teacher over as many tokens"""
_HEAD_SHARE = 0.4
"""of the distillation's time, where the teacher's vocabulary head is trained first"""
LEAST_STEPS = 48
"""of fine-tuning on the English sets, where time is plenty: they are small, and take more epochs"""


@dataclass(frozen=True)
class Tuning:
    """How a task is fine-tuned when time is plenty."""

    epochs: float
    learning_rate: float
    row_length: int
    batch: int = 16
    """rows of a step"""


TUNING: Mapping[str, Tuning] = {
    "sentiment": Tuning(4, 2e-4, 128),
    "ner": Tuning(16, 4e-4, 96),
    "nli": Tuning(4, 2e-4, 96),
    "qa": Tuning(3, 3e-4, 288, batch=8),
}


@dataclass(frozen=True)
class Plan:
    """Steps of each run of the demo."""

    tokens_per_second: float
    """of a training step of the teacher, measured"""
    distil_steps: int
    tune_steps: dict[str, int]
    """task -> optimizer steps"""
    seconds_per_cell: float
    """of the benchmark, which has five"""
    head_steps: int = 0
    """of the vocabulary head, where the teacher has none"""

    def head_settings(self, *, longest: int, seed: int) -> dict[str, str]:
        """Recipe overrides of training a vocabulary head."""
        return {
            "training.max_steps": str(self.head_steps),
            "training.batch_size": str(DISTIL_ROWS),
            "training.row_length": str(min(DISTIL_LENGTH, longest)),
            "training.evaluations": "1",
            "training.seed": str(seed),
            "held_out": "0.03",
        }

    def distil_settings(self, *, longest: int, seed: int, fresh: bool) -> dict[str, str]:
        """Recipe overrides of the distillation; a student that has learned before learns at a lower rate."""
        return {
            "training.max_steps": str(self.distil_steps),
            "training.batch_size": str(DISTIL_ROWS),
            "training.row_length": str(min(DISTIL_LENGTH, longest)),
            "training.learning_rate": "5e-4" if fresh else "1e-4",
            "training.evaluations": "1",
            "student.dropout": "0",
            "training.seed": str(seed),
            "held_out": "0.03",
            # A head of some hundred steps may predict no better than frequencies; the demo goes on and says so.
            **({"guards.bad_teacher": "warn"} if self.head_steps else {}),
        }

    def tune_settings(self, task: str, *, longest: int, seed: int) -> dict[str, str]:
        """Recipe overrides of a fine-tuning run."""
        tuning = TUNING[task]
        return {
            "training.max_steps": str(self.tune_steps[task]),
            "training.batch_size": str(tuning.batch),
            "training.row_length": str(min(tuning.row_length, longest)),
            "training.learning_rate": str(tuning.learning_rate),
            "training.evaluations": "1",  # a valid part of a dozen rows selects nothing
            "student.dropout": "0",  # too few steps to overfit; attention with dropout is slow on a CPU
            "training.seed": str(seed),
        }

    def told(self, minutes: float) -> str:
        """What a person is told of it."""
        steps = ", ".join(f"{task} {steps}" for task, steps in self.tune_steps.items())
        speed = f"this machine trains the teacher at {self.tokens_per_second:,.0f} tokens a second"
        head = f"{self.head_steps} steps for the teacher's vocabulary head, " if self.head_steps else ""
        return f"{speed}; for {minutes:g} minutes: {head}{self.distil_steps} steps of distillation, fine-tuning {steps}"


def kept_plan(path: Path, make: Callable[[], Plan]) -> Plan:
    """The plan in `path`, made and written there the first time: an interrupted demo goes on as it began."""
    if not path.is_file():
        path.write_text(json.dumps(asdict(make())), encoding="utf-8")
    return Plan(**json.loads(path.read_text(encoding="utf-8")))


def plan(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: Mapping[str, Path],
    *,
    minutes: float,
    distil_tokens: int,
    least_steps: int = 1,
    needs_head: bool = False,
) -> Plan:
    """Share out `minutes` among distillation (in steps of `distil_tokens`) and the tasks of `data`.

    `least_steps`: of fine-tuning, where time is plenty. `needs_head`: the teacher's vocabulary head is trained first.

    Raises: InputError or DataError where the data of a task cannot be read.
    """
    speed = measured_speed(teacher)
    wanted: dict[str, int] = {}
    seconds = 0.0
    for task, folder in data.items():
        count, tokens = _size(task, folder, tokenizer)
        wanted[task] = max(least_steps, round(TUNING[task].epochs * count / TUNING[task].batch))
        seconds += wanted[task] * TUNING[task].batch * tokens * (1 + _STUDENT + _BASELINE) / speed
    fixed = _FIXED_SECONDS + _FIXED_SECONDS_A_TASK * len(data)
    free = max(60 * minutes - fixed, _LEAST_FREE * 60 * minutes)
    scale = min(1.0, free * _TUNE_SHARE / seconds)
    steps = free * _DISTIL_SHARE * speed / distil_tokens  # if each took as long as one of the teacher's
    head = _HEAD_SHARE if needs_head else 0.0
    return Plan(
        tokens_per_second=speed,
        distil_steps=max(2, int(steps * (1 - head) / _DISTIL)),
        tune_steps={task: max(2, int(steps * scale)) for task, steps in wanted.items()},
        seconds_per_cell=free * _BENCHMARK_SHARE / 5,
        head_steps=max(2, int(steps * head / _HEAD)) if needs_head else 0,
    )


def measured_speed(model: PreTrainedModel) -> float:
    """Tokens a second of whole training steps of the encoder, the best of three after one to warm up.

    `model` stays as it is.
    """
    keep_big_buffers()
    rows, length = _PROBE[0], min(_PROBE[1], max_length(model.config))
    ids = torch.randint(5, model.config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))
    encoder = deepcopy(model.base_model)  # in eval mode: the demo trains without dropout
    optimizer = torch.optim.AdamW(encoder.parameters())
    times = []
    for _ in range(4):
        began = time.perf_counter()
        encoder(input_ids=ids.to(model.device)).last_hidden_state.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - began)
    return rows * length / min(times[1:])


def _size(task: str, folder: Path, tokenizer: PreTrainedTokenizerFast) -> tuple[int, float]:
    """Rows of the training part, and their mean tokens."""
    length = TUNING[task].row_length
    examples = read_examples(load_task(task), find_parts(folder)["train"])
    sample: Sequence[Example] = examples[:: max(1, len(examples) // 200)]
    encoded = encode(tokenizer.backend_tokenizer, sample, max_length=length, stride=stride_for(length))
    tokens = sum(len(row.input_ids) for row in encoded)
    return round(len(examples) * len(encoded) / len(sample)), tokens / len(encoded)
