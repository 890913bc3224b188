"""What tests of compressors share: tiny models, batches with labels, and the resources that methods ask for."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

import affinage.compression  # noqa: F401  (registers every method)
from affinage.compression.base import Resources, compressors
from affinage.models.packed import without_cache_
from affinage.signals import IGNORED, Batch
from tiny import SENTENCES, tiny_model, tiny_tokenizer

WHOLE = ("bert", "roberta", "camembert", "xlm-roberta", "distilbert", "electra")
"""architectures whose every part has a name"""
CUTTABLE: tuple[tuple[str, dict[str, object]], ...] = (
    *((architecture, {}) for architecture in WHOLE),
    ("flaubert", {}),
    ("flaubert", {"pre_norm": True}),
    ("deberta-v2", {}),
    ("deberta-v2", {"share_att_key": False}),
    ("modernbert", {"global_attn_every_n_layers": 2}),
    ("eurobert", {"num_key_value_heads": None}),
)
"""those that heads, neurons and layers can be taken out of"""


def built(name: str, **params: object) -> Any:
    """The registered method with these parameters."""
    return compressors.build(name, params)


def sharp_model(architecture: str, head: str = "sequence", **config: object) -> PreTrainedModel:
    """A tiny model whose weights are so large that its parts do not all do the same, and whose biases are not 0."""
    model = tiny_model(architecture, head, **config)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "orm" not in name:
                parameter.add_(torch.randn(parameter.shape, generator=random) * 0.3)
    without_cache_(model)
    return model


def batches(
    architecture: str, *, rows: int = 3, texts: tuple[str, ...] = SENTENCES[:6], classes: int = 2
) -> list[Batch]:
    """Padded batches of these texts with a class each."""
    tokenizer = tiny_tokenizer(architecture)
    made = []
    for start in range(0, len(texts), rows):
        encoded = [tokenizer(text, truncation=True).input_ids for text in texts[start : start + rows]]
        length = max(map(len, encoded))
        ids = torch.tensor([row + [tokenizer.pad_token_id] * (length - len(row)) for row in encoded])
        mask = torch.arange(length) < torch.tensor([[len(row)] for row in encoded])
        labels = torch.tensor([(start + i) % classes for i in range(len(encoded))])
        made.append(Batch(input_ids=ids, mask=mask, labels=labels))
    return made


def logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Of whatever head the model has."""
    output = model(input_ids=batch.input_ids, attention_mask=batch.mask.long())
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], -1)
    found: Tensor = output.logits
    return found


def loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Cross-entropy of the classes; of a masked language model that of every third token."""
    found = logits(model, batch)
    if found.ndim == 2:
        assert batch.labels is not None
        return cross_entropy(found, batch.labels)
    guessed = batch.mask & (torch.arange(found.shape[1]) % 3 == 1)
    targets = torch.where(guessed, batch.input_ids % found.shape[-1], IGNORED)
    return cross_entropy(found.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def parameters(model: PreTrainedModel) -> int:
    return sum(p.numel() for p in model.parameters())


def resources(architecture: str, *, seed: int = 0) -> Resources:
    """All of them: the score falls with the loss, its time goes by its number of parameters."""
    rows = batches(architecture)

    def score(model: PreTrainedModel) -> float:
        with torch.no_grad():
            return -float(sum(loss(model, batch) for batch in rows))

    return Resources(
        calibration=rows,
        loss=loss,
        score=score,
        latency=lambda model, whole: parameters(model) / parameters(whole),
        texts=SENTENCES,
        seed=seed,
    )
