"""A write that fails: where, what, why and what to do, in one sentence; whatever else goes wrong passes unchanged."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from safetensors import SafetensorError

from affinage.errors import InputError, WriteError
from affinage.training.writing import writing

FULL = "the disk is full; free some space"
AGAIN = " and run the same command again: it goes on from what is whole"


def failure(code: int) -> OSError:
    return OSError(code, os.strerror(code), "some/file")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (failure(errno.ENOSPC), FULL),
        (failure(errno.EDQUOT), FULL),
        (shutil.Error([("from", "to", "[Errno 28] No space left on device: 'to'")]), FULL),
        (failure(errno.EFBIG), "File too large; raise the limit on file sizes (ulimit -f)"),
        (failure(errno.EROFS), "Read-only file system; make it writable"),
        (failure(errno.EACCES), "Permission denied; make it writable"),
        (failure(errno.EIO), "Input/output error; check the disk"),
        # As safetensors 0.6 and torch 2.13 say it.
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), FULL),
        (
            SafetensorError("Error while serializing: I/O error: File too large (os error 27)"),
            "File too large (os error 27); raise the limit on file sizes (ulimit -f)",
        ),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
            "the disk is full, or files may not grow so large; free some space",
        ),
    ],
)
def test_a_write_that_fails(error: Exception, said: str) -> None:
    with pytest.raises(WriteError) as caught, writing("a checkpoint", Path("run/checkpoints")):
        raise error
    assert str(caught.value) == f"'run/checkpoints': a checkpoint cannot be written: {said}{AGAIN}"
    assert caught.value.exit_code == 2
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        failure(errno.ENOENT),
        OSError("of no number"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        SafetensorError("Error while deserializing header: HeaderTooLarge"),
        RuntimeError("[enforce fail at inline_container.cc:158] . PytorchStreamReader failed reading zip archive"),
        InputError("the corpus is too small"),
        KeyboardInterrupt(),
    ],
)
def test_whatever_else_goes_wrong(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, writing("a checkpoint", Path("run")):
        raise error
    assert caught.value is error
