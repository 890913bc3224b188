"""What a transformers model answers: as its config, its class, its labels and the task that is asked for say."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from affinage.data.task import load_task, task_names
from affinage.models.checkpoint import (
    head_kind,
    load_masked_lm,
    load_task_model,
    max_length,
    no_answer_threshold,
    problem_of,
    task_of,
)
from affinage.models.layout import class_names
from affinage.models.pooling import Pooling, read_pooling
from affinage.runtime.facts import ModelFacts, ModelKind, agreed_kind, check_task, texts_of_task


def kind_of(config: Any, *, where: str, task: str | None) -> ModelKind:
    """What a model does: the task asked for, else the one in its config, else what its files, class and labels say.

    `where`: its folder or hub name. Every encoder can be asked for embeddings.

    Raises: InputError where nothing says it, or the model was made for another kind of task.
    """
    check_task(task)
    if task == "embedding" or (task is None and task_of(config) is None and read_pooling(where) is not None):
        return "embedding"
    masked = any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in class_names(config))
    head: ModelKind | None = "fill_mask" if masked else head_kind(config)
    if head == "sequence" and any(str(name).lower().startswith("entail") for name in (config.id2label or {}).values()):
        head = "pair"
    noted = task_of(config)
    found = load_task(noted).kind if noted in task_names() else head
    return agreed_kind(found, task=task, noted=noted, where=where)


def facts_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    kind: ModelKind,
    *,
    task: str | None = None,
    pooling: Pooling | None = None,
) -> ModelFacts:
    """What a predictor must know of a model. `task`: the one that was asked for; None: the one in its config."""
    config = model.config
    classes = {} if kind in ("span", "fill_mask", "embedding") else config.id2label or {}
    pooling = pooling or Pooling()
    lengths = (max_length(config), tokenizer.model_max_length, pooling.max_length)
    name = task or task_of(config)
    return ModelFacts(
        kind=kind,
        task=name,
        texts=texts_of_task(name),
        labels=tuple(str(label) for _, label in sorted(classes.items())),
        max_length=min(filter(None, lengths)),
        pad_id=tokenizer.pad_token_id,
        mask_id=tokenizer.mask_token_id,
        unk_id=tokenizer.unk_token_id,
        problem_type=problem_of(config),
        special_ids=tuple(sorted(set(tokenizer.all_special_ids))),
        no_answer_threshold=no_answer_threshold(config),
        normalize=pooling.normalize,
        prompt=pooling.prompt,
    )


def load_network(name_or_path: str | Path, kind: ModelKind) -> tuple[PreTrainedModel, Pooling | None]:
    """The model of a folder or hub name in eval mode and, where it is for embeddings, what is done with its states.

    Raises: InputError where it cannot be loaded.
    """
    if kind == "embedding":
        # Under a vocabulary head that is never applied, so that the encoder has the name that `layout_of` gives.
        return load_masked_lm(name_or_path, allow_fresh_head=True)[0], read_pooling(name_or_path) or Pooling()
    return load_masked_lm(name_or_path)[0] if kind == "fill_mask" else load_task_model(name_or_path, kind), None
