"""Command lines in processes of their own that are killed, each forked from one that has imported everything.

A fork takes milliseconds, importing torch seconds; to SIGKILL and to the disk both are processes like any other.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_IMPORTED = (
    "affinage.cli.app",
    "affinage.workflows.distil",
    "affinage.workflows.finetune",
    "transformers.models.camembert.modeling_camembert",
)


@dataclass(frozen=True)
class Death:
    """SIGKILL, some time after the process is about to open, make or rename a path that ends so."""

    path: str
    seconds: float

    def await_(self) -> None:
        """In the process that is to die. Where all is done before the time is over, it dies then."""
        timer = threading.Timer(self.seconds, os.kill, (os.getpid(), signal.SIGKILL))
        seen = False

        def look(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            changes = event in ("open", "os.mkdir", "os.rename")
            if changes and not seen and any(str(path).endswith(self.path) for path in arguments[:2]):
                seen = True
                timer.start()

        sys.addaudithook(look)


def start(
    arguments: Sequence[str],
    *,
    messages: Path,
    variables: Mapping[str, str] | None = None,
    death: Death | None = None,
) -> ForkServerProcess:
    """Begin `affinage arguments…`, with these environment variables; what it writes is added to the file `messages`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    process = context.Process(
        target=_command, args=(list(arguments), str(messages), dict(variables or {}), death), daemon=True
    )
    process.start()
    return process


def _command(arguments: list[str], messages: str, variables: dict[str, str], death: Death | None) -> None:
    os.environ.update(variables)
    from tqdm.std import tqdm

    from affinage.cli.app import run

    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which the killed would leave behind

    handle = os.open(messages, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    if death is not None:
        death.await_()
    sys.exit(run(arguments))
