"""What makes a model train faster on a CPU and leaves its weights, its files and what it computes as they are."""

from transformers import PreTrainedModel

from affinage.models.attention import quicken_attention_
from affinage.models.dropout import quicken_dropout_


def quicken_(model: PreTrainedModel) -> None:
    """Quick dropout, and attention that is quick in training."""
    quicken_dropout_(model)
    quicken_attention_(model)
