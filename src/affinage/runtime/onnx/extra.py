"""What graphs are built with is an extra: where it is missing, the cure is named."""

from collections.abc import Iterator
from contextlib import contextmanager

from affinage.errors import MissingExtra


@contextmanager
def export_extra() -> Iterator[None]:
    """Around the imports that need it. Raises: MissingExtra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("onnx", "onnxruntime", "onnxscript"):
            raise
        raise MissingExtra(error.name, "export") from None
