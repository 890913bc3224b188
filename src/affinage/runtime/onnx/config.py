"""What an exported folder says of its model: all that text -> answer needs besides the graph and the tokenizer."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from tokenizers import Tokenizer

from affinage.errors import InputError
from affinage.runtime.facts import ModelFacts

FORMAT: Literal["affinage-onnx-1"] = "affinage-onnx-1"
TOKENIZER, CONFIG = "tokenizer.json", "config.json"
GRAPHS: dict[str, str] = {"onnx": "model.onnx", "openvino": "model.xml"}
"""file of the graph in each format; what is large lies beside it"""

Form = Literal["onnx", "openvino"]
Int8Kind = Literal["none", "dynamic", "static"]
Target = Literal["x86-vnni", "x86", "arm64"]


class Parity(BaseModel):
    """How the graph's answers compare with PyTorch's on a sample of texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    """rows of tokens that were compared"""
    largest_difference: float
    """of two logits, at real tokens"""
    largest_logit: float
    agreement: float
    """share of equal answers, in [0, 1]"""


class OnnxConfig(ModelFacts):
    """`config.json` of an exported folder."""

    format: Literal["affinage-onnx-1"] = FORMAT
    affinage: str
    architecture: str
    graph: Form = "onnx"
    """format of the graph"""
    int8: Int8Kind = "none"
    target: Target | None = None
    """the processors that the integers are made for"""
    parity: Parity | None = None

    def to_json(self) -> str:
        """As it is written."""
        return self.model_dump_json(indent=1) + "\n"


def is_exported(folder: Path | str) -> bool:
    """Whether a folder is one that `affinage export` wrote, though its config be damaged."""
    try:
        return _read(Path(folder)).get("format") == FORMAT
    except OSError:
        return False
    except ValueError:
        weights = any(Path(folder).glob("*.safetensors"))
        return not weights and any((Path(folder) / name).is_file() for name in GRAPHS.values())


def read_onnx_config(folder: Path | str) -> OnnxConfig:
    """The config of an exported folder. Raises: InputError where there is none, or it is damaged."""
    path = Path(folder) / CONFIG
    try:
        return OnnxConfig.model_validate(_read(Path(folder)))
    except OSError as error:
        raise InputError(f"model '{folder}': {CONFIG} cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"'{path}': {where}: {first['msg']}; export the model again") from None
    except ValueError as error:
        raise InputError(f"'{path}' is no JSON: {error}; export the model again") from None


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of an exported folder. Raises: InputError where it is missing or damaged."""
    try:
        return Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # tokenizers raises no other class
        reason = str(error).splitlines()[0]
        raise InputError(f"model '{folder}': {TOKENIZER} cannot be read: {reason}; export the model again") from None


def _read(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError("expected an object")
    return found
