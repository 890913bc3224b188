"""Command lines in processes of their own that can be killed, each forked from one that has imported everything.

A fork takes milliseconds, importing torch seconds; to SIGKILL and to the disk both are processes like any other.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_IMPORTED = (
    "affinage.cli.app",
    "affinage.workflows.distil",
    "affinage.workflows.finetune",
    "transformers.models.camembert.modeling_camembert",
)


def start(arguments: Sequence[str], *, messages: Path, variables: Mapping[str, str] | None = None) -> ForkServerProcess:
    """Begin `affinage arguments…`, with these environment variables; what it writes is added to the file `messages`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    process = context.Process(
        target=_command, args=(list(arguments), str(messages), dict(variables or {})), daemon=True
    )
    process.start()
    return process


def _command(arguments: list[str], messages: str, variables: dict[str, str]) -> None:
    os.environ.update(variables)
    from tqdm.std import tqdm

    from affinage.cli.app import run

    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which the killed would leave behind

    handle = os.open(messages, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.exit(run(arguments))
