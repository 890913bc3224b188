"""int8 without training: ranges of activations taken from each batch, or measured beforehand."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.quantization.calibration import Ranges, input_ranges
from affinage.compression.quantization.places import (
    LEAVES,
    TABLE_LEAVES,
    TABLE_TAKES,
    TAKES,
    Parts,
    no_linear,
    quantized,
)
from affinage.models.modules.base import Compressed
from affinage.models.modules.int8 import int8_embedding, int8_linear, static_int8_linear


def _table(path: str, table: nn.Embedding) -> Compressed:
    return int8_embedding(table.weight, table.padding_idx)


@compressors.register("int8", source="Zafrir et al. 2019 (Q8BERT), arXiv:1910.06188, eq. 1; ranges as ONNX Runtime's")
@dataclass(frozen=True, kw_only=True)
class Int8(Parts):
    """int8 weights; activations in 8 bits too, in a range taken from each batch. Fast in ONNX Runtime."""

    per_channel: bool = True
    """a scale for each output instead of one for the whole matrix"""
    reduce_range: bool = False
    """weights in 7 bits: for x86 processors without VNNI, whose 16-bit sums saturate"""

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = Traits("quantization", TAKES, LEAVES, trains=False)

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        def make(path: str, linear: nn.Linear) -> Compressed:
            return int8_linear(linear, per_channel=self.per_channel, bits=7 if self.reduce_range else 8)

        return quantized(model, self, make, _table, method="int8")


@compressors.register("int8-static", source="Jacob et al. 2018, arXiv:1712.05877, eq. 1; ranges: see `ranges`")
@dataclass(frozen=True, kw_only=True)
class Int8Static(Parts):
    """int8 weights; activations in 8 bits too, in ranges measured on calibration texts. Fast in ONNX Runtime."""

    ranges: Ranges = "min-max"
    """all of what was seen; all but the outermost (`outside`); or where the histogram loses least (Migacz 2017)"""
    outside: float = 1e-4
    """percentile: share of the values that may lie outside, [0, 0.5)"""
    per_channel: bool = True
    """a scale for each output instead of one for the whole matrix"""
    reduce_range: bool = False
    """weights in 7 bits: for x86 processors without VNNI, whose 16-bit sums saturate"""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})
    traits: ClassVar[Traits] = Traits("quantization", TAKES, LEAVES, trains=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.outside < 0.5:
            raise ValueError(f"outside is a share of the values in [0, 0.5), not {self.outside}")

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        found = input_ranges(model, self.linears(model), resources.calibration, self.ranges, outside=self.outside)

        def make(path: str, linear: nn.Linear) -> Compressed:
            bits = 7 if self.reduce_range else 8
            return static_int8_linear(linear, *found[path], per_channel=self.per_channel, bits=bits)

        return quantized(model, self, make, _table, method="int8-static")


@compressors.register("int8-embeddings", source="Zafrir et al. 2019 (Q8BERT), arXiv:1910.06188, eq. 1, by rows")
@dataclass(frozen=True)
class Int8Embeddings:
    """Word and position embeddings in int8, a scale for each row; the rest of the model stays as it is."""

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = Traits("quantization", TABLE_TAKES, TABLE_LEAVES)

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        parts = Parts(encoder=False, heads=False)
        return quantized(model, parts, no_linear, _table, method="int8-embeddings")
