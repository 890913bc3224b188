"""Compressors applied to tiny models, each given what it asks for; those that train, trained a little."""

import re
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import affinage.compression  # noqa: F401  (registers every compressor)
from affinage.compression.base import ChangesTokenizer, Resources, TrainedCompressor, compressors
from affinage.models.layout import depth_of
from affinage.models.modules.base import Compressed
from affinage.models.replacing import linears
from affinage.models.structure import structure_of
from affinage.signals import Batch
from tiny import SENTENCES, tiny_model, tiny_tokenizer

NAMES = [entry.name for entry in compressors.entries()]
_PACKED = ("int8", "group", "ternary", "binary", "codebook")
"""how the kinds begin that stand for a quantized matrix"""


@lru_cache
def batches(architecture: str, head: str) -> tuple[Batch, ...]:
    """Two of four rows each, with labels."""
    tokenizer = tiny_tokenizer(architecture)
    made = []
    for number in range(2):
        texts = [SENTENCES[(4 * number + i) % len(SENTENCES)] for i in range(4)]
        found = tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
        ids, mask = found["input_ids"], found["attention_mask"] > 0
        if head == "mlm":
            hidden = torch.zeros_like(mask)
            hidden[:, 2::4] = mask[:, 2::4]
            labels = ids.masked_fill(~hidden, -100)
            batch = Batch(ids.masked_fill(hidden, tokenizer.mask_token_id), mask, mask.long(), labels=labels)
        else:
            batch = Batch(ids, mask, labels=torch.tensor([0, 1, 1, 0]))
        made.append(batch)
    return tuple(made)


def logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    ids = batch.input_ids.clamp(max=model.config.vocab_size - 1)  # of a vocabulary that was trimmed since
    found: Tensor = model(input_ids=ids, attention_mask=batch.mask.long()).logits
    return found


def loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    assert batch.labels is not None
    found = logits(model, batch)
    return cross_entropy(found.flatten(0, -2), batch.labels.flatten(), ignore_index=-100)


def score(model: PreTrainedModel) -> float:
    """Differs from model to model, and is as good as any."""
    architecture = model.config.model_type
    head = "sequence" if "Sequence" in type(model).__name__ else "mlm"
    with torch.no_grad():
        return 1 / (1 + float(loss(model, batches(architecture, head)[0])))


def operations(model: PreTrainedModel, whole: PreTrainedModel) -> float:
    """In the place of a share of time: falls with every head, neuron or layer that goes."""
    ours, theirs = (
        sum(p.numel() for path in linears(one) for p in one.get_submodule(path).parameters()) for one in (model, whole)
    )
    return ours / theirs


def resources(architecture: str, head: str, needs: frozenset[str]) -> Resources:
    """What a method asks for and nothing else."""
    return Resources(
        calibration=batches(architecture, head) if needs & {"calibration", "gradients"} else None,
        loss=loss if "gradients" in needs else None,
        score=score if "score" in needs else None,
        latency=operations if "latency" in needs else None,
        texts=SENTENCES[:6] if "texts" in needs else None,
    )


def begun(
    method: Any, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, given: Resources
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The compressed model; of a method that happens during training, the one to be trained."""
    if isinstance(method, ChangesTokenizer):
        return method.apply_with_tokenizer(model, tokenizer, given)
    if isinstance(method, TrainedCompressor):
        return method.prepare(model, given), tokenizer
    return method.apply(model, given), tokenizer


def applied(
    name: str, model: PreTrainedModel, architecture: str, head: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The compressed model, trained for a few steps where the method asks for it."""
    method = compressors.build(name)
    given = resources(architecture, head, method.needs)
    prepared, tokenizer = begun(method, model, tiny_tokenizer(architecture), given)
    assert prepared is not model
    return trained_and_finished(method, prepared, architecture, head), tokenizer


@cache
def once(name: str, architecture: str, head: str) -> tuple[PreTrainedModel, PreTrainedModel, PreTrainedTokenizerFast]:
    """A tiny model, what the method made of it, and the tokenizer: for tests that change none of them."""
    model = tiny_model(architecture, head)
    return model, *applied(name, model, architecture, head)


def trained_and_finished(method: Any, prepared: PreTrainedModel, architecture: str, head: str) -> PreTrainedModel:
    """After a few steps, where the method happens during training; else the model as it is."""
    if not isinstance(method, TrainedCompressor):
        return prepared
    prepared.train()
    trained = [p for p in prepared.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    for step in range(4):
        method.on_step(prepared, step, 4)
        optimizer.zero_grad()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step)
            loss(prepared, batches(architecture, head)[step % 2]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return method.finish(prepared)


def forms(model: PreTrainedModel, original: PreTrainedModel) -> set[str]:
    """The forms in which weights stand, as far as they can be seen; "factored or shared" where it is one of them."""
    structure, found = structure_of(model), set[str]()
    for path in structure.parts:
        module = model.get_submodule(path)
        if not isinstance(module, Compressed):
            peers = [re.sub(r"\.\d+\.", f".{i}.", path, count=1) for i in range(depth_of(model.config))]
            shapes = {tuple(model.get_parameter(f"{peer}.weight").shape) for peer in peers}
            if path not in peers or len(shapes) > 1:
                found.add("uneven")
        elif module.kind.startswith("sparse-"):
            found.add("sparse")
        elif module.kind.startswith(_PACKED):
            found.add("packed" if hasattr(module, "in_features") else "packed-table")
        elif not any(isinstance(inner, Compressed) for inner in module.children()):
            found.add("factored or shared")
    if structure.attributes:
        found.add("uneven")
    if structure.shared:
        found.add("shared")
    if model.config.model_type == "albert" != original.config.model_type:
        found.add("stock-albert")
    maps = [model.get_submodule(path) for path in linears(model)]
    zeros = sum(float((m.weight == 0).sum()) for m in maps if isinstance(m, nn.Linear))
    if zeros > 0.01 * sum(m.weight.numel() for m in maps if isinstance(m, nn.Linear)):
        found.add("sparse")
    return found
