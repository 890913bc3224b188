"""The same encoder under another head, which is new: a vocabulary's, or a task's."""

from typing import Any

from transformers import AutoModelForMaskedLM, PreTrainedModel

from affinage.models.checkpoint import TASK_CLASSES, Kind
from affinage.models.layout import layout_of
from affinage.models.structure import refuse_compressed


def under_vocabulary_head(model: PreTrainedModel) -> PreTrainedModel:
    """A masked language model with a copy of the encoder of `model`."""
    return _with_encoder_of(model, AutoModelForMaskedLM)


def under_task_head(model: PreTrainedModel, kind: Kind) -> PreTrainedModel:
    """A task model with a copy of the encoder of `model`; labels are those of its config."""
    return _with_encoder_of(model, TASK_CLASSES[kind])


def _with_encoder_of(model: PreTrainedModel, auto_class: Any) -> PreTrainedModel:
    refuse_compressed(model)
    made: PreTrainedModel = auto_class.from_config(model.config)
    base = layout_of(model.config).base
    # Some heads come with a pooler and some without.
    made.get_submodule(base).load_state_dict(model.get_submodule(base).state_dict(), strict=False)
    made.eval()
    return made
