"""Training that goes wrong by itself: what is noticed at each step and evaluation, and stopped or left out."""

import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from affinage.data.rows import PackedRows
from affinage.errors import CheckFailed, InputError
from affinage.recipe import Guards
from affinage.report.report import Finding
from affinage.training.chance import Knowledge, knowledge
from affinage.training.processes import processes

log = logging.getLogger(__name__)

WINDOW = 100
"""Gradient norms whose median is the usual one."""
MIN_FALL = 0.001
"""Share of its first value by which the held-out loss must have fallen to count as learning."""
MIN_STEPS = 20
"""Fewer steps teach nothing, and warming up is part of them."""
_SAID = 5
"""Findings of one guard that are logged; from then on each hundredth."""

Name = Literal["non_finite", "exploding_gradient", "no_progress", "bad_teacher"]
Action = Literal["skipped", "warned", "stopped"]


def non_finite(value: float, what: str) -> str | None:
    """In words, that `value` is no number; None where it is one."""
    if math.isfinite(value):
        return None
    return f"the {what} is {value}: an overflow; lower training.learning_rate, or try training.precision=fp32"


def exploding(norm: float, usual: Sequence[float], *, ratio: float, floor: float) -> str | None:
    """In words, that `norm` is more than `ratio` times both the median of `usual` and `floor`; None where it is not.

    Below `ratio` times `floor`, the norm that gradients are clipped to, a large gradient is what clipping is for.
    """
    if not usual or norm <= ratio * max(median(usual), floor):
        return None
    return (
        f"the gradient norm {norm:.3g} is far above its median of {median(usual):.3g}: one step would undo many; lower "
        "training.learning_rate, lengthen training.warmup, or look at the data of this step"
    )


def no_progress(start: float, values: Sequence[float], *, name: str, higher: bool) -> str | None:
    """In words, that the best of `values`, since training began at `start`, is no better; None where it is."""
    best = max(values) if higher else min(values)
    learnt = best > start if higher else best < start - MIN_FALL * abs(start)
    if learnt:
        return None
    word = "risen" if higher else "fallen"
    return (
        f"the {name} is {best:.4g} and was {start:.4g} before training: it has hardly {word}, the model does not "
        "learn; try another training.learning_rate, and look at data and losses"
    )


def bad_teacher(found: Knowledge) -> str | None:
    """In words, that a teacher knows no more than chance does; None where it does."""
    if found.loss < found.chance:
        return None
    return (
        f"on {found.tokens:,} held-out tokens the teacher's masked language model loss is {found.loss:.3f}, and "
        f"knowing nothing but how frequent each token is gives {found.chance:.3f}: a student would learn nothing from "
        "it; check that its weights, its vocabulary and the language of the corpus belong together"
    )


class Guard(TrainerCallback, ExportableState):
    """Acts on what goes wrong by the rules of a recipe. Its state is part of every checkpoint: a resumed run decides
    as one that was never interrupted.
    """

    def __init__(self, rules: Guards) -> None:
        self._rules = rules
        self._found: dict[tuple[str, str], Finding] = {}
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._in_a_row = 0
        self._held_out: list[float] = []
        self._judged = False
        self._stopped = ""
        self._losses: list[Tensor] = []
        self._norm = 0.0

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found so far: one entry for each guard and action."""
        return tuple(self._found.values())

    def judge_teacher(self, teacher: PreTrainedModel, held_out: PackedRows, seen: NDArray[np.int32]) -> None:
        """Before training; parameters as of `knowledge`. Raises: InputError where the rule is to stop."""
        rule = self._rules.bad_teacher
        found = None if rule == "off" else knowledge(teacher, held_out, seen)
        problem = None if found is None else bad_teacher(found)
        if problem is None:
            return
        if rule == "stop":
            raise InputError(f"{problem}. To train all the same: --set guards.bad_teacher=warn")
        self._note("bad_teacher", "warned", 0, problem)

    def watch(self, trainer: Trainer, checkpoint: Path | None) -> None:
        """Join a trainer's callbacks, as the last one; go on from where the checkpoint was written, if there is one.

        No callback is told a step's loss, nor its gradient norm before clipping: the trainer's methods are.
        """
        if checkpoint is not None:
            kept: Any = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")).stateful_callbacks
            self._restore(kept[type(self).__name__]["attributes"])
        trainer.args.eval_on_start = checkpoint is None and self._rules.no_progress != "off"
        trainer.args.logging_nan_inf_filter = True  # one loss that is no number would stay in the logged mean for good
        train_one: Any = trainer.training_step
        norm_of: Any = trainer._get_grad_norm

        def training_step(*args: Any, **kwargs: Any) -> Tensor:
            loss: Tensor = train_one(*args, **kwargs)
            self._losses.append(loss)
            return loss

        def gradient_norm(*args: Any, **kwargs: Any) -> Any:
            norm = norm_of(*args, **kwargs)
            self._norm = float(norm)
            return norm

        trainer.training_step = training_step  # type: ignore[method-assign]
        trainer._get_grad_norm = gradient_norm  # type: ignore[method-assign]
        trainer.add_callback(self)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        problem, guard = self._problem(args)
        self._losses.clear()
        if problem is None:
            self._norms.append(self._norm)
            self._in_a_row = 0
            return
        kwargs["optimizer"].zero_grad(set_to_none=True)  # without a gradient a weight is neither moved nor decayed
        self._in_a_row += 1
        step, rule = state.global_step + 1, getattr(self._rules, guard)
        if rule == "skip" and self._in_a_row < self._rules.max_skips:
            self._note(guard, "skipped", step, f"{problem}. The update is left out")
            return
        if rule == "skip":
            problem = f"{self._in_a_row} updates in a row had to be left out, at last because {problem}"
        self._stop(guard, step, problem, control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        last = state.global_step >= state.max_steps
        if last and args.eval_strategy != "no":
            control.should_evaluate = True  # before the last checkpoint is written
        # After several bad steps it was the weights, not the data: no checkpoint of them pushes out a good one.
        if self._stopped or (self._in_a_row > 1 and not last):
            control.should_save = control.should_evaluate = False

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        metrics: Mapping[str, float] = kwargs["metrics"]
        is_loss, step = "eval_loss" in metrics, state.global_step
        key = "eval_loss" if is_loss else str(args.metric_for_best_model)
        name, value = "held-out " + key.removeprefix("eval_"), float(metrics[key])
        if (problem := non_finite(value, name)) is not None:
            self._stop("non_finite", step, problem, control)
            return
        self._held_out.append(value)
        early = step < max(MIN_STEPS, self._rules.progress_by * state.max_steps)
        if early or self._judged or self._rules.no_progress == "off":
            return
        self._judged = True
        start, *values = self._held_out
        problem = no_progress(start, values, name=name, higher=not is_loss)
        if problem is not None and self._rules.no_progress == "warn":
            self._note("no_progress", "warned", step, problem)
        elif problem is not None:
            self._stop("no_progress", step, problem, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._stopped:
            raise CheckFailed(self._stopped)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        attributes = {
            "found": [finding.model_dump() for finding in self._found.values()],
            "norms": list(self._norms),
            "in_a_row": self._in_a_row,
            "held_out": self._held_out,
            "judged": self._judged,
        }
        return {"args": {}, "attributes": attributes}

    def _restore(self, kept: Mapping[str, Any]) -> None:
        found = map(Finding.model_validate, kept["found"])
        self._found = {(finding.guard, finding.action): finding for finding in found}
        self._norms.extend(kept["norms"])
        self._held_out += kept["held_out"]
        self._in_a_row, self._judged = kept["in_a_row"], kept["judged"]

    def _problem(self, args: TrainingArguments) -> tuple[str | None, Name]:
        """What is wrong with this step: the same on every process."""
        # The gradients are those of all processes, a loss is one's own.
        loss = torch.stack(self._losses).sum()
        if args.world_size > 1:
            torch.distributed.all_reduce(loss)
        problem = non_finite(float(loss), "loss") or non_finite(self._norm, "gradient norm")
        if problem is not None or self._rules.exploding_gradient == "off":
            return problem, "non_finite"
        floor, ratio = args.max_grad_norm, self._rules.gradient_ratio
        return exploding(self._norm, self._norms, ratio=ratio, floor=floor), "exploding_gradient"

    def _stop(self, guard: Name, step: int, problem: str, control: TrainerControl) -> None:
        control.should_training_stop = True
        control.should_save = False
        self._note(guard, "stopped", step, problem)
        self._stopped = f"step {step}: {problem}. Training is stopped; the last whole checkpoint is kept"

    def _note(self, guard: Name, action: Action, step: int, message: str) -> None:
        first = Finding(guard=guard, action=action, times=0, first_step=step, last_step=step, message=message)
        finding = self._found.get((guard, action), first)
        finding = finding.model_copy(update={"times": finding.times + 1, "last_step": step})
        self._found[guard, action] = finding
        often = finding.times > _SAID and finding.times % 100
        if action != "stopped" and not often and processes().is_main_process:
            log.warning("step %d: %s", step, message)
