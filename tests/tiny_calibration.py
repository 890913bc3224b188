"""What compressors ask for besides a model, made of the tests' own sentences."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from affinage.compression.base import Resources
from affinage.signals import Batch
from tiny import SENTENCES, tiny_tokenizer


def calibration_batches(architecture: str = "bert", classes: int = 2) -> list[Batch]:
    """Two batches of five sentences, padded, with a class each."""
    tokenizer = tiny_tokenizer(architecture)
    made = []
    for part in (SENTENCES[:5], SENTENCES[5:]):
        encoded = tokenizer(list(part), padding=True, truncation=True, max_length=48, return_tensors="pt")
        mask = encoded["attention_mask"].bool()
        made.append(Batch(input_ids=encoded["input_ids"], mask=mask, labels=torch.arange(len(part)) % classes))
    return made


def class_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """() mean cross-entropy of a sequence classifier."""
    assert batch.labels is not None
    logits = model(input_ids=batch.input_ids, attention_mask=batch.mask.long()).logits
    return cross_entropy(logits, batch.labels)


def tiny_resources(architecture: str = "bert") -> Resources:
    return Resources(calibration=calibration_batches(architecture), loss=class_loss, texts=SENTENCES, seed=1)
