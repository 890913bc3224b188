"""What a run on raw text will cost on this machine, from a few steps of that very training."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from affinage.data.rows import PackedRows
from affinage.data.sample import Sample
from affinage.data.streams import Stream
from affinage.distillation.objective import Objective
from affinage.models.layout import layout_of
from affinage.models.quickening import quicken_
from affinage.recipe import Recipe
from affinage.report.provenance import cpu_name
from affinage.runtime.memory import peak_memory_bytes
from affinage.training.allocator import keep_big_buffers
from affinage.training.arguments import computes_in_bf16, total_steps, training_arguments
from affinage.training.guards import Guard
from affinage.training.plan import Memory, flops_per_token, memory
from affinage.training.processes import processes
from affinage.training.progress import RichProgress
from affinage.training.run_folder import RunFolder
from affinage.training.threads import settle_threads
from affinage.training.trainer import SumTrainer
from affinage.training.trial import STEPS, StepClock, peak_flops
from affinage.workflows.corpus_stage import CorpusRows, corpus_rows
from affinage.workflows.plan import shape_of, workload

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DryRun:
    """What was counted, estimated and measured."""

    command: str
    recipe: str
    device: str
    processes: int
    precision: str
    student_parameters: int
    teacher_parameters: int | None
    corpus_tokens: int | None
    """to train on in one pass, special tokens included; None where the corpus is streamed and nobody can know"""
    corpus_estimated: bool
    """whether they are estimated from a sample of the lines"""
    corpus_share: float | None
    """of the corpus, that was read for that"""
    row_fill: float
    """share of a packed row that is text"""
    steps: int | None
    """None where neither `max_steps` nor the corpus says"""
    tokens_per_step: float
    """real ones, of all processes"""
    steps_timed: int
    step_seconds: float
    """median of them"""
    overhead_share: float | None
    """of their time, for anything but forward, backward and update: data, masks, logs"""
    tokens_per_second: float
    flops_per_token: float
    peak_flops: float
    peak_source: str
    utilisation: float
    planned_memory: Memory
    """by arithmetic, on one device"""
    measured_memory_bytes: int
    """greatest of the first process: its resident set, or what it had allocated on its GPU"""
    preparation_seconds: float | None
    """tokenising and packing; None where that goes on while it trains"""
    training_seconds: float | None
    """all steps at the median; held-out scores and checkpoints not counted"""


@dataclass(frozen=True)
class Text:
    """What a dry run reads: the corpus itself, or a sample of it in a file of its own."""

    files: Sequence[Path | str]
    folder: Path
    """a temporary one"""
    taken: Sample | None = None
    """None: the whole corpus"""
    stream: Stream | None = None

    @property
    def run_folder(self) -> RunFolder:
        """A place for what a run keeps beside its output; it goes with the temporary folder."""
        folder = RunFolder(self.folder / "out", self.folder / "out.partial", False)
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        return folder


def trial_run(
    objective: Objective,
    text: Text,
    recipe: Recipe,
    *,
    teacher: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerFast,
    quiet: bool = False,
) -> DryRun:
    """Train a few steps on `text` and say what the whole would take. The objective's student is changed by it.

    Raises: InputError as the run itself would before it trains; CheckFailed where a guard of the recipe would stop it.
    """
    keep_big_buffers()
    settle_threads()
    quicken_(objective.student)
    stage = recipe.stages[0]
    if stage.training.kernels == "liger":
        objective.use_liger_()
    count = processes().num_processes
    # Of a sample, half is enough to train on, and whatever the share there is text in both parts.
    read = stage if text.taken is None else stage.model_copy(update={"held_out": 0.5})
    began = time.perf_counter()
    rows = corpus_rows(text.files, tokenizer, read, folder=text.folder / "tokens")
    reading = time.perf_counter() - began
    assert isinstance(rows.train, PackedRows)
    if teacher is not None:
        Guard(stage.guards).judge_teacher(teacher, rows.held_out, rows.train.store.ids)
    training = stage.training
    fill = rows.train.tokens / (len(rows.train) * training.row_length)
    scale = _scale(text, rows, stage.held_out)
    steps = training.max_steps
    if steps is None and scale is not None:
        steps = total_steps(training, max(1, round(len(rows.train) * scale)), processes=count)
    clock = _trial(objective, rows, recipe, tokenizer=tokenizer, folder=text.run_folder, quiet=quiet)
    bf16 = computes_in_bf16(training.precision)
    student = objective.student
    work = workload(
        stage,
        shape_of(student.config),
        None if teacher is None else shape_of(teacher.config),
        bf16=bf16,
        dropout=bool(getattr(student.config, layout_of(student.config).dropouts[0])),
    )
    measured = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_memory_bytes()
    asked = training.batch_size * training.gradient_accumulation_steps * count
    per_step = rows.train.tokens * min(1.0, asked / len(rows.train))  # a corpus of a few rows does not fill a step
    speed = per_step / clock.median_seconds
    peak, source = peak_flops(bf16=bf16)
    flops = flops_per_token(work).total
    streamed = text.stream is not None
    return DryRun(
        command=recipe.kind,
        recipe=recipe.name,
        device=_device(),
        processes=count,
        precision="bf16" if bf16 else "fp32",
        student_parameters=student.num_parameters(),
        teacher_parameters=None if teacher is None else teacher.num_parameters(),
        corpus_tokens=None if scale is None else round(rows.train.tokens * scale),
        corpus_estimated=text.taken is not None,
        corpus_share=1.0 if text.taken is None else text.taken.share,
        row_fill=fill,
        steps=steps,
        tokens_per_step=per_step,
        steps_timed=len(clock.seconds),
        step_seconds=clock.median_seconds,
        overhead_share=clock.share,
        tokens_per_second=speed,
        flops_per_token=flops,
        peak_flops=peak,
        peak_source=source,
        utilisation=speed * flops / peak,
        planned_memory=memory(work, devices=count, fused_dropout=torch.cuda.is_available()),
        measured_memory_bytes=measured,
        preparation_seconds=None if streamed or scale is None else reading / _share(text),
        training_seconds=None if steps is None else steps * clock.median_seconds,
    )


def _trial(
    objective: Objective,
    rows: CorpusRows,
    recipe: Recipe,
    *,
    tokenizer: PreTrainedTokenizerFast,
    folder: RunFolder,
    quiet: bool,
) -> StepClock:
    """The first steps of the training, with its data, optimizer and guards, but no evaluation and no checkpoint."""
    stage, clock = recipe.stages[0], StepClock()
    settings = {"eval_strategy": "no", "save_strategy": "no"}
    trainer = SumTrainer(
        objective,
        training_arguments(stage.training, folder=folder, steps=STEPS, **settings),
        rows=rows.train,
        held_out=rows.held_out,
        tokenizer=tokenizer,
        callbacks=[clock, RichProgress("trial", quiet=quiet)],
    )
    Guard(stage.guards.model_copy(update={"no_progress": "off"})).watch(trainer, None)
    log.info("a trial of %d steps", STEPS)
    trainer.train()
    return clock


def _scale(text: Text, rows: CorpusRows, held_out: float) -> float | None:
    """How many times as much there is to train on in the corpus as in `rows`; None where nobody knows."""
    if text.taken is None:
        return 1.0
    if text.taken.share is None:
        return None
    assert isinstance(rows.train, PackedRows)
    both = rows.train.tokens + rows.held_out.tokens
    return (1 - held_out) * both / rows.train.tokens / text.taken.share


def _share(text: Text) -> float:
    return 1.0 if text.taken is None or text.taken.share is None else text.taken.share


def _device() -> str:
    """What trains, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{cpu_name()}, {threads} thread{'s' if threads > 1 else ''} a process"
