"""Few-bit weights in groups."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.quantization.places import (
    LEAVES,
    TABLE_LEAVES,
    TABLE_TAKES,
    TAKES,
    FewBits,
    Parts,
    no_linear,
    quantized,
)
from affinage.models.modules.groups import GroupEmbedding, GroupLinear, group_matrix
from affinage.models.modules.matrix import Inputs, packed_embedding, packed_linear


def check_group(group: int) -> None:
    """Raises: ValueError for a group that ONNX Runtime's operators do not take."""
    if group < 16 or group & (group - 1):
        raise ValueError(f"group is a power of two, 16 at least, not {group}")


def group_linear(linear: nn.Linear, bits: int, group: int, inputs: Inputs) -> GroupLinear:
    """The map with weights of `bits` bits."""
    return packed_linear(GroupLinear, linear, group_matrix(linear.weight, bits, group), inputs)


def group_embedding(table: nn.Embedding, bits: int, group: int) -> GroupEmbedding:
    """The table with weights of `bits` bits."""
    return packed_embedding(GroupEmbedding, table, group_matrix(table.weight, bits, group))


@compressors.register("int4", source="Shen et al. 2020 (Q-BERT), arXiv:1909.05840, section 3.2, groups along the input")
@dataclass(frozen=True, kw_only=True)
class Int4(FewBits):
    """4-bit weights in groups. Smaller; faster in ONNX Runtime where activations have 8 bits."""

    group: int = 64
    """weights of a row that share a scale and a zero point: a power of two, 16 at least"""

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = Traits("quantization", TAKES, LEAVES, trains=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_group(self.group)

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        return quantized(
            model,
            self,
            lambda _, linear: group_linear(linear, 4, self.group, self.activations),
            lambda _, table: group_embedding(table, 4, self.group),
            method="int4",
        )


@compressors.register(
    "int4-embeddings", source="Shen et al. 2020 (Q-BERT), arXiv:1909.05840, section 3.2, rows in groups"
)
@dataclass(frozen=True, kw_only=True)
class Int4Embeddings:
    """Word and position embeddings of 4 bits in groups; the rest of the model stays as it is."""

    group: int = 64
    """numbers of a row that share a scale and a zero point: a power of two, 16 at least"""

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = Traits("quantization", TABLE_TAKES, TABLE_LEAVES)

    def __post_init__(self) -> None:
        check_group(self.group)

    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        parts = Parts(encoder=False, heads=False)
        return quantized(
            model, parts, no_linear, lambda _, table: group_embedding(table, 4, self.group), method="int4-embeddings"
        )
