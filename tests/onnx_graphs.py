"""Models whose every weight counts, texts for them, and what they say as PyTorch and as a graph."""

from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from affinage.models.packed import without_cache_
from affinage.runtime.onnx.session import OnnxEngine
from tiny import SENTENCES, tiny_model, tiny_tokenizer

Arrays = list[NDArray[Any]]


def noisy(model: PreTrainedModel) -> PreTrainedModel:
    """The model with noise on every parameter, biases and norms included."""
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    without_cache_(model)
    return model


def model_of(family: str, head: str, **config: Any) -> PreTrainedModel:
    """A random one; three classes."""
    return noisy(tiny_model(family, head, **({} if head in ("span", "mlm") else {"num_labels": 3}), **config))


def inputs_of(family: str, texts: int = 3) -> dict[str, NDArray[np.int64]]:
    """(B, T) each: sentences of unlike lengths, the second half of each under the second type of token."""
    encoded = tiny_tokenizer(family)(list(SENTENCES[:texts]), padding=True, return_tensors="np")
    ids, mask = encoded["input_ids"].astype(np.int64), encoded["attention_mask"].astype(np.int64)
    types = (np.arange(ids.shape[1]) > ids.shape[1] // 3).astype(np.int64) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def torch_outputs(model: PreTrainedModel, inputs: dict[str, NDArray[np.int64]]) -> Arrays:
    """The model's logits, of real tokens alone where there are some for every token."""
    taken = dict(inputs) if getattr(model.config, "type_vocab_size", 0) > 1 else _without_types(inputs)
    with torch.no_grad():
        output = model(**{name: torch.from_numpy(array) for name, array in taken.items()})
    found = [output.start_logits, output.end_logits] if "start_logits" in output else [output.logits]
    real = inputs["attention_mask"].astype(bool)
    return [a[real] if a.shape[:2] == real.shape else a for a in (tensor.numpy() for tensor in found)]


def graph_outputs(graph: onnx.ModelProto, inputs: dict[str, NDArray[np.int64]]) -> Arrays:
    """The same of a graph; a masked language model is asked for every real token."""
    engine = OnnxEngine(graph.SerializeToString(), pad_id=0, threads=1)
    real = inputs["attention_mask"].astype(bool)
    found = engine.run({**inputs, "positions": np.argwhere(real)})
    return [a[real] if a.shape[:2] == real.shape else a for a in found]


def _without_types(inputs: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    return {name: array for name, array in inputs.items() if name != "token_type_ids"}
