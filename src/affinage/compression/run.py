"""How a plan runs: apply, recover, measure, keep or undo; what a step made is stored, and a run is taken up there."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from affinage.compression.base import NEEDS, ChangesTokenizer, Resources, TrainedCompressor
from affinage.compression.budget import more_is_lost
from affinage.compression.plan import AnyCompressor, Plan
from affinage.errors import InputError
from affinage.report.ledger import LedgerEntry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """What a plan has made so far."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast


@dataclass(frozen=True)
class Measured:
    """What is known of a state."""

    parameters: int
    size_bytes: int
    latency_ms: float | None
    score: float | None


class Ways(Protocol):
    """What a plan is run with; `workflows` wires it."""

    @property
    def given(self) -> frozenset[str]:
        """Of `NEEDS`: what `resources` fills."""
        ...

    @property
    def recovers(self) -> bool:
        """Whether there is anything to train on."""
        ...

    def resources(self, state: State) -> Resources:
        """For the state's vocabulary."""
        ...

    def check_recovery(self, state: State) -> None:
        """Raises: InputError where recovery could not train this state: its losses cannot compare it with the start."""
        ...

    def recovered(self, state: State, number: int, steps: int, trained: TrainedCompressor | None) -> State:
        """After `steps` optimizer steps as step `number` of the plan; `trained` is told of each."""
        ...

    def measured(self, state: State) -> Measured:
        """Its figures."""
        ...

    def keep(self, number: int, state: State, entry: LedgerEntry) -> None:
        """Store what step `number` made, whole or not at all."""
        ...

    def kept(self, number: int) -> tuple[State, LedgerEntry] | None:
        """What was stored."""
        ...


def check_plan(plan: Plan, ways: Ways) -> list[AnyCompressor]:
    """The plan's compressors, in order. Raises: InputError where they do not go together, or need what is not given."""
    built = plan.checked()
    problems = []
    cure = "name a task and its rows with --task and --data, or text with --corpus"
    if "texts" in ways.given and not ways.recovers:
        cure = (
            "name the task that the model is fine-tuned for and its rows with --task and --data (text serves a masked "
            "language model alone)"
        )
    for number, (step, made) in enumerate(zip(plan.steps, built, strict=True)):
        if lacks := sorted(made.needs & NEEDS - ways.given):
            problems.append(f"step {number + 1}, '{step.method}', needs {', '.join(lacks)}: {cure}")
        if plan.recovery_of(number, made) and not ways.recovers:
            problems.append(
                f"step {number + 1}, '{step.method}', is followed by training: {cure}, or leave recover out"
            )
        if plan.allowed_loss(number) is not None and "score" not in ways.given:
            problems.append(
                f"step {number + 1}, '{step.method}', may lose {plan.allowed_loss(number)} of the score, and there is "
                f"none: {cure}, or leave most_lost out"
            )
    if problems:
        raise InputError("the plan cannot run:\n  " + "\n  ".join(problems))
    return built


def run_plan(
    plan: Plan, built: Sequence[AnyCompressor], start: State, ways: Ways
) -> tuple[State, tuple[LedgerEntry, ...]]:
    """The last state, and the ledger: the model as it was, then every step, undone ones included.

    Steps that `ways` kept are not made again.
    """
    before = ways.kept(0)
    if before is None:
        began = time.perf_counter()
        ways.keep(0, start, _entry(0, "uncompressed", ways.measured(start), began=began))
        before = ways.kept(0)
        assert before is not None
    state, ledger = before[0], [before[1]]
    for number, (step, made) in enumerate(zip(plan.steps, built, strict=True), start=1):
        found = ways.kept(number)
        if found is None:
            log.info("step %d of %d: %s", number, len(plan.steps), step.title)
            began = time.perf_counter()
            steps = plan.recovery_of(number - 1, made)
            after = _recovered(made, state, ways, number, steps)
            entry = _entry(number, step.title, ways.measured(after), began=began, recovery_steps=steps)
            allowed, standing = plan.allowed_loss(number - 1), _standing(ledger).score
            lost = 0.0 if entry.score is None or standing is None else standing - entry.score
            if allowed is not None and more_is_lost(lost, allowed):
                log.warning("step %d, '%s', loses %.4f of the score, %.4f is allowed: undone", number, step.title, lost,
                            allowed)  # fmt: skip
                entry, after = entry.model_copy(update={"undone": True}), state
            ways.keep(number, after, entry)
            found = ways.kept(number)
            assert found is not None
        # What was stored is what goes on, in this run as in one that takes it up.
        state = found[0]
        ledger.append(found[1])
    return state, tuple(ledger)


def applied(made: AnyCompressor, state: State, resources: Resources) -> State:
    """What a method makes of the state, before any training."""
    if isinstance(made, ChangesTokenizer):
        return State(*made.apply_with_tokenizer(state.model, state.tokenizer, resources))
    if isinstance(made, TrainedCompressor):
        return State(made.prepare(state.model, resources), state.tokenizer)
    return State(made.apply(state.model, resources), state.tokenizer)


def _recovered(made: AnyCompressor, state: State, ways: Ways, number: int, steps: int) -> State:
    """The state after a method and `steps` optimizer steps of recovery, as step `number` of the plan."""
    trained = made if isinstance(made, TrainedCompressor) else None
    state = applied(made, state, ways.resources(state))
    if steps:
        state = ways.recovered(state, number, steps, trained)
    return state if trained is None else State(trained.finish(state.model), state.tokenizer)


def _entry(number: int, title: str, measured: Measured, *, began: float, recovery_steps: int = 0) -> LedgerEntry:
    return LedgerEntry(
        step=number,
        title=title,
        parameters=measured.parameters,
        size_bytes=measured.size_bytes,
        latency_ms=measured.latency_ms,
        score=measured.score,
        recovery_steps=recovery_steps,
        seconds=time.perf_counter() - began,
    )


def _standing(ledger: Sequence[LedgerEntry]) -> LedgerEntry:
    """The entry of the state that the next step starts from."""
    return next(entry for entry in reversed(ledger) if not entry.undone)
