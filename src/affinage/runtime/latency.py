"""How long a model in memory takes for one text: a figure to compare what a run makes, not one to publish."""

import numpy as np
from transformers import PreTrainedModel

from affinage.models.checkpoint import head_kind, max_length
from affinage.models.layout import layout_of
from affinage.runtime.benchmark import interleave
from affinage.runtime.forward import TorchForward


def one_text_ms(model: PreTrainedModel, *, length: int = 128, repeats: int = 9, seconds: float = 3.0) -> float:
    """Median milliseconds of one text of `length` tokens, or as many as the model takes, in PyTorch.

    As the benchmark does it: with the head of a task, without a vocabulary head.
    """
    config = model.config
    pad = int(config.pad_token_id or 0)
    others = [i for i in range(min(int(config.vocab_size), 1000)) if i != pad]
    size = min(length, max_length(config))
    ids = np.random.default_rng(0).choice(others, size=(1, size)).astype(np.int64)
    kind = head_kind(config) if "ForMaskedLM" not in type(model).__name__ else None
    network = model if kind is not None else model.get_submodule(layout_of(config).base)
    was = model.training
    forward = TorchForward(network.eval())
    timing = interleave(
        lambda _, __: forward.run(ids, np.ones_like(ids)), models=1, warmup=1, repeats=repeats, seconds=seconds
    )
    model.train(was)
    return timing.quantile_ms(0, 0.5)
