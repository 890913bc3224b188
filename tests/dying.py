"""A process that dies at its n-th change to the disk, played in this one: that change and all after it are refused."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod"}
_left: int | None = None
"""changes that are still allowed; None: nobody is to die"""


class Died(BaseException):
    """Nothing may catch it; what a `finally` still tries is refused too, for a killed process tries nothing."""


def change() -> None:
    """To be called where a file is half written: the one kind of change that Python does not announce."""
    global _left
    if _left is None:
        return
    if _left == 0:
        raise Died
    _left -= 1


@contextmanager
def dying_after(changes: int) -> Iterator[None]:
    """Let the block die after so many changes. A block that made fewer goes through."""
    global _left
    _left = changes
    try:
        yield
    except Died:
        pass
    finally:
        _left = None


def sync(handle: int) -> None:
    """In place of `os.fsync`, which is slow: who dies here leaves half of what was being written."""
    try:
        change()
    except Died:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR):
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
        raise


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if _left is None:
        return
    writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if writes or event in _CHANGES:
        change()


sys.addaudithook(_refuse)  # is there for good, and does nothing outside of `dying_after`
