"""Functions of tensors that torch.compile makes one kernel of, where it can and where that pays back."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

log = logging.getLogger(__name__)

WORTH_ENTRIES = 4e10
"""Logits (tokens x vocabulary) of a run from which on compiling pays back: on two cores it spared 3 ns an entry and
took half a minute (benchmarks/LOG.md), so that this is four times as much."""


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, compiled when it is first called, once for all numbers of rows."""
    return torch.compile(function)


@cache
def can_compile() -> bool:
    """Whether a small function compiles here: it takes a C++ compiler (on a GPU, Triton)."""
    try:
        compiled(_tried)(torch.ones(64, 64))
    except RuntimeError as error:  # torch's errors of compilation are RuntimeErrors
        log.info("not compiled, since that fails here: %s", str(error).partition("\n")[0])
        return False
    return True


def _tried(x: torch.Tensor) -> torch.Tensor:
    return x.exp().sum(-1)
