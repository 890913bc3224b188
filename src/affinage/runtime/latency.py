"""How long a model in memory takes for one text: a figure to compare what a run makes, not one to publish."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from transformers import PreTrainedModel

from affinage.models.checkpoint import head_kind, max_length
from affinage.models.layout import layout_of
from affinage.runtime.benchmark import interleave
from affinage.runtime.forward import TorchForward

_LENGTH = 128
_WARMUP, _ROUNDS, _SECONDS = 1, 9, 3.0


def one_text_ms(model: PreTrainedModel) -> float:
    """Median milliseconds of one text of 128 tokens, or as many as the model takes, in PyTorch.

    As the benchmark does it: with the head of a task, without a vocabulary head.
    """
    with _one_text(model) as run:
        timing = interleave(lambda _, __: run(), models=1, warmup=_WARMUP, repeats=_ROUNDS, seconds=_SECONDS)
    return timing.quantile_ms(0, 0.5)


def share_of_time(model: PreTrainedModel, reference: PreTrainedModel) -> float:
    """The time of such a text as a share of the reference's: the median of rounds in which both take a turn, so that
    what slows the machine slows both.
    """
    with _one_text(model) as ours, _one_text(reference) as theirs:
        runs = (theirs, ours)
        timing = interleave(lambda i, _: runs[i](), models=2, warmup=_WARMUP, repeats=_ROUNDS, seconds=_SECONDS)
    return 1 / timing.ratio(1)[0]


@contextmanager
def _one_text(model: PreTrainedModel) -> Iterator[Callable[[], object]]:
    """One pass over the text, the model being in evaluation mode."""
    config = model.config
    pad = int(config.pad_token_id or 0)
    others = [i for i in range(min(int(config.vocab_size), 1000)) if i != pad]
    size = min(_LENGTH, max_length(config))
    ids = np.random.default_rng(0).choice(others, size=(1, size)).astype(np.int64)
    kind = head_kind(config) if "ForMaskedLM" not in type(model).__name__ else None
    network = model if kind is not None else model.get_submodule(layout_of(config).base)
    was = model.training
    forward = TorchForward(network.eval())
    try:
        yield lambda: forward.run(ids, np.ones_like(ids))
    finally:
        model.train(was)
