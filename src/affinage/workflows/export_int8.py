"""A model for an int8 graph with fixed ranges: the quantizer of `compression`, calibrated on rows of text."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from affinage.compression.base import Resources
from affinage.compression.quantization.int8 import Int8Static
from affinage.data.collate import pad_rows
from affinage.data.encoding import Row
from affinage.models.layout import layout_of
from affinage.signals import Batch

_ROWS = 16
"""in a batch"""


def static_int8(model: PreTrainedModel, rows: Sequence[Row], *, pad_id: int, narrow: bool) -> PreTrainedModel:
    """A copy of the model with int8 maps and tables, whose activations have the ranges that `rows` gave them.

    `narrow`: weights of 7 bits. Raises: InputError where there are too few tokens, or nothing to quantize.
    """
    with_types = layout_of(model.config).token_type_embeddings is not None
    batches = []
    for start in range(0, len(rows), _ROWS):
        inputs = pad_rows(list(rows[start : start + _ROWS]), pad_id=pad_id, with_types=with_types)
        mask, types = inputs["attention_mask"].bool(), inputs.get("token_type_ids")
        batches.append(Batch(input_ids=inputs["input_ids"], mask=mask, token_type_ids=types))
    return Int8Static(reduce_range=narrow).apply(model, Resources(calibration=batches))
