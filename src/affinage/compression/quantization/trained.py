"""Quantization-aware training: the model computes with rounded weights while it recovers, and is packed in the end."""

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.quantization.calibration import input_ranges
from affinage.compression.quantization.places import (
    LEAVES,
    TAKES,
    FewBits,
    Parts,
    quantized,
    replace_table_,
    table_paths,
)
from affinage.models.modules.base import Compressed, InputForm
from affinage.models.modules.qat import QatEmbedding, QatLinear, WeightForm
from affinage.models.replacing import replace_module_


@dataclass(frozen=True, kw_only=True)
class _Trained(Parts):
    """Float weights, rounded in every pass; what they are rounded to is kept."""

    method: ClassVar[str]
    weights: ClassVar[WeightForm]
    needs: ClassVar[frozenset[str]] = frozenset()

    def inputs_as(self) -> InputForm:
        """How the inputs of linear maps are rounded."""
        return "float"

    def prepare(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        def make_linear(path: str, linear: nn.Linear) -> Compressed:
            has_bias = linear.bias is not None
            made = QatLinear(linear.in_features, linear.out_features, has_bias, self.weights, self.inputs_as())
            made.load_state_dict(linear.state_dict(), strict=False)
            return made

        def make_table(path: str, table: nn.Embedding) -> Compressed:
            made = QatEmbedding(table.num_embeddings, table.embedding_dim, table.padding_idx, self.weights)
            made.load_state_dict(table.state_dict())
            return made

        return quantized(model, self, make_linear, make_table, method=self.method)

    def on_step(self, model: PreTrainedModel, step: int, total: int) -> None:
        """Nothing changes on the way."""

    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        made = copy.deepcopy(model).eval()
        with torch.no_grad():
            for path in table_paths(made):
                table = made.get_submodule(path)
                if isinstance(table, QatEmbedding):
                    replace_table_(made, path, table.packed())
            for path, module in list(made.named_modules()):
                if isinstance(module, QatLinear):
                    replace_module_(made, path, module.packed())
        whole: PreTrainedModel = made.eval()
        return whole


@dataclass(frozen=True, kw_only=True)
class _TrainedFewBits(_Trained, FewBits):
    """Fewer than 8 bits, with inputs of maps as they are or rounded as they will be."""

    def inputs_as(self) -> InputForm:
        return self.activations


@compressors.register("qat-int8", source="Zafrir et al. 2019 (Q8BERT), arXiv:1910.06188; Jacob et al. 2018, section 3")
@dataclass(frozen=True, kw_only=True)
class TrainedInt8(_Trained):
    """int8 weights and activations, learned in recovery training. Fast in ONNX Runtime."""

    activations: Literal["static", "dynamic"] = "static"
    """in a moving average of the ranges seen in training, or in the range of each batch"""

    method: ClassVar[str] = "qat-int8"
    weights: ClassVar[WeightForm] = "int8"
    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})
    traits: ClassVar[Traits] = Traits("quantization", TAKES, LEAVES)

    def inputs_as(self) -> InputForm:
        return self.activations

    def prepare(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        made = super().prepare(model, resources)
        paths = self.linears(model)
        if self.activations == "static":
            # The average starts from what the model sees before it is trained.
            for path, (low, high) in input_ranges(model, paths, resources.calibration, "min-max").items():
                module = made.get_submodule(path)
                assert isinstance(module, QatLinear)
                module.low.fill_(low)
                module.high.fill_(high)
        return made


@compressors.register("qat-int4", source="Zafrir et al. 2019 (Q8BERT), arXiv:1910.06188; groups as in Q-BERT")
@dataclass(frozen=True, kw_only=True)
class TrainedInt4(_TrainedFewBits):
    """4-bit weights in groups of 64, learned in recovery. Smaller; faster where activations have 8 bits."""

    method: ClassVar[str] = "qat-int4"
    weights: ClassVar[WeightForm] = "int4"
    traits: ClassVar[Traits] = Traits("quantization", TAKES, LEAVES)


@compressors.register("qat-ternary", source="Zhang et al. 2020 (TernaryBERT), arXiv:2009.12812, section 3.1 with TWN")
@dataclass(frozen=True, kw_only=True)
class TrainedTernary(_TrainedFewBits):
    """Weights of -α, 0 and α, 1.6 bits each, learned in recovery. Smaller; faster where activations have 8 bits."""

    method: ClassVar[str] = "qat-ternary"
    weights: ClassVar[WeightForm] = "ternary"
    traits: ClassVar[Traits] = Traits("quantization", TAKES, LEAVES)


@compressors.register("qat-binary", source="Rastegari et al. 2016 (BWN), arXiv:1603.05279, section 3.1; scales by rows")
@dataclass(frozen=True, kw_only=True)
class TrainedBinary(_TrainedFewBits):
    """Weights of -α and α, 1 bit each, learned in recovery. Smaller; faster where activations have 8 bits."""

    method: ClassVar[str] = "qat-binary"
    weights: ClassVar[WeightForm] = "binary"
    traits: ClassVar[Traits] = Traits("quantization", TAKES - {"sparse"}, LEAVES)
