"""Whether a model can take every step of a plan: all of them applied to a copy, without training, before the first is.

What a plan and its parameters cannot tell (the architecture, sizes, how much text there is, what an earlier step left)
its methods say when they are applied. So that nobody waits through the training of one step for the refusal of the
next, they are asked in advance, with as little work as makes them say the same.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from affinage.compression.base import Resources, TakesLong, TrainedCompressor
from affinage.compression.plan import AnyCompressor, Plan
from affinage.compression.quantization.calibration import LEAST_TOKENS
from affinage.compression.run import State, Ways, applied
from affinage.errors import InputError
from affinage.signals import Batch

log = logging.getLogger(__name__)


def rehearse(plan: Plan, built: Sequence[AnyCompressor], start: State, ways: Ways) -> None:
    """Raises: InputError that names the step which the model does not take, or after which it cannot be trained.

    Changes nothing, random numbers included. Of what is left out of the work: rounds that only make a result better,
    scores, and all calibration rows but as many as the methods insist on. A plan of one step without data is left
    alone: that step is its first work anyway.
    """
    if len(built) == 1 and "score" not in ways.given:
        return
    log.info("asking whether the model takes every step, before the first")
    known: dict[PreTrainedTokenizerFast, Resources] = {}

    def resources(state: State) -> Resources:
        if state.tokenizer not in known:
            known[state.tokenizer] = _least(ways.resources(state), start.model)
        return known[state.tokenizer]

    def after(number: int, state: State) -> None:
        if plan.recovery_of(number, built[number]):
            ways.check_recovery(state)

    quick = [made.quick() if isinstance(made, TakesLong) else made for made in built]
    with torch.random.fork_rng(devices=[]), _in_silence():
        without_training(plan, quick, start, resources, after=after)


def without_training(
    plan: Plan,
    built: Sequence[AnyCompressor],
    start: State,
    resources: Callable[[State], Resources],
    *,
    after: Callable[[int, State], None] = lambda number, state: None,
) -> State:
    """What the steps make of `start` one after another; `after` is told of each, from 0, and what it made.

    Raises: InputError where one cannot be taken, which is named.
    """
    state = start
    for number, (step, made) in enumerate(zip(plan.steps, built, strict=True)):
        given = resources(state)  # what the data lacks is no step's fault
        try:
            state = applied(made, state, given)
            if isinstance(made, TrainedCompressor):
                state = State(made.finish(state.model), state.tokenizer)
            after(number, state)
        except InputError as error:
            raise InputError(f"the plan cannot run:\n  step {number + 1}, '{step.method}': {error}") from error
    return state


def _least(found: Resources, model: PreTrainedModel) -> Resources:
    """As many calibration rows as any method refuses to do without, and scores and losses that cost nothing.

    Where nobody asks for gradients, scores and losses only choose between what fits alike.
    """

    def loss(model: PreTrainedModel, batch: Batch) -> Tensor:
        assert found.loss is not None
        return found.loss(model, batch) if torch.is_grad_enabled() else torch.zeros(())

    return replace(
        found,
        calibration=None if found.calibration is None else _first_of(found.calibration, _tokens_needed(model)),
        loss=None if found.loss is None else loss,
        score=None if found.score is None else lambda model: 0.0,
    )


def _tokens_needed(model: PreTrainedModel) -> int:
    """The entries of the widest input of a linear map, for its second moments; never fewer than ranges need."""
    return max([LEAST_TOKENS, *(module.in_features for module in model.modules() if isinstance(module, nn.Linear))])


def _first_of(batches: Sequence[Batch], tokens: int) -> list[Batch]:
    """The first batches, until they hold so many tokens."""
    chosen: list[Batch] = []
    for batch in batches:
        if sum(int(one.mask.sum()) for one in chosen) < tokens:
            chosen.append(batch)
    return chosen


@contextmanager
def _in_silence() -> Iterator[None]:
    """What methods tell, they tell when they are applied in earnest."""
    methods = logging.getLogger("affinage.compression")
    before = methods.level
    methods.setLevel(logging.ERROR)
    try:
        yield
    finally:
        methods.setLevel(before)
