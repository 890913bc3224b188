"""Models and tokenizers from a folder or a hub name: checked before use, always float32, never remote code."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from affinage.errors import InputError
from affinage.models.flaubert_tokenizer import flaubert_tokenizer, needs_building
from affinage.models.layout import class_names, dropout_settings, layout_of, position_offset
from affinage.models.packed import without_cache_
from affinage.models.shipped import located
from affinage.models.storage import STRUCTURE, is_compressed, load_compressed

Kind = Literal["sequence", "pair", "multi_label", "regression", "token", "span"]
"""What a head is for: as `Kind` of `data.task`, which has the same rank as this file."""

log = logging.getLogger(__name__)

_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError, StrictDataclassError)

_PICKLED = (
    "its weights are a pickle, which can run code; where you trust it, load it with transformers and save it and its "
    "tokenizer with save_pretrained, which writes safetensors"
)

_GRAPHS = ("model.onnx", "model.xml")
"""what `affinage export` writes in place of weights"""

TASK_CLASSES: dict[str, Any] = {
    "sequence": AutoModelForSequenceClassification,
    "pair": AutoModelForSequenceClassification,
    "multi_label": AutoModelForSequenceClassification,
    "regression": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
    "span": AutoModelForQuestionAnswering,
}

_SUFFIXES: dict[Kind, str] = {
    "sequence": "ForSequenceClassification",
    "token": "ForTokenClassification",
    "span": "ForQuestionAnswering",
}
_PROBLEMS: dict[Kind, str] = {
    "sequence": "single_label_classification",
    "pair": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
"""kind -> `problem_type`, by which transformers' sequence classifiers choose their loss"""
_AFTER_PROBLEM: tuple[Kind, ...] = ("multi_label", "regression")


def read_config(name_or_path: str | Path) -> PretrainedConfig:
    """The config of a model folder or hub name. Raises: InputError where there is none to be had."""
    config: PretrainedConfig = _read(
        name_or_path, lambda name: AutoConfig.from_pretrained(name, trust_remote_code=False)
    )
    return config


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a model; FlauBERT's slow one as a BPE.

    Raises: InputError where it is missing, slow, or lacks a pad token.
    """
    folder = located(name_or_path)
    # A tokenizer may lie alone, without a config.
    if os.path.isfile(os.path.join(folder, "config.json")) and needs_building(folder, read_config(folder).model_type):
        return flaubert_tokenizer(folder)
    tokenizer = _read(
        name_or_path,
        lambda name: AutoTokenizer.from_pretrained(name, trust_remote_code=False),
        file="tokenizer_config.json",
    )
    if not tokenizer.is_fast:
        raise InputError(f"model '{name_or_path}': its tokenizer has no fast version (no tokenizer.json, no offsets)")
    if tokenizer.pad_token_id is None:
        raise InputError(f"model '{name_or_path}': its tokenizer has no pad token")
    fast: PreTrainedTokenizerFast = tokenizer
    # Some (sentence-transformers') cut and pad every text by themselves: what fits a row is decided here.
    fast.backend_tokenizer.no_truncation()
    fast.backend_tokenizer.no_padding()
    return fast


def load_model(name_or_path: str | Path) -> PreTrainedModel:
    """The model of a folder or hub name under the head that its config names, in eval mode; compressed ones too.

    Raises: InputError where it cannot be read, or has neither a vocabulary head nor that of a task.
    """
    kind = head_kind(read_config(name_or_path))
    return load_masked_lm(name_or_path)[0] if kind is None else load_task_model(name_or_path, kind)


def load_masked_lm(name_or_path: str | Path, *, allow_fresh_head: bool = False) -> tuple[PreTrainedModel, bool]:
    """A masked language model in eval mode, and whether its vocabulary head came with it.

    Raises: InputError where it cannot be read, or has no head and `allow_fresh_head` is False.
    """
    layout_of(read_config(name_or_path))
    model, fresh = _load(AutoModelForMaskedLM, name_or_path)
    if fresh and not allow_fresh_head:
        raise InputError(
            f"model '{name_or_path}' has no masked language model head ({_some(fresh)} would start at random): "
            "a teacher needs one; train it first with: affinage pretrain CORPUS --from MODEL --recipe mlm-head"
        )
    return model, not fresh


def load_task_model(
    name_or_path: str | Path,
    kind: Kind,
    *,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    dropout: float | None = None,
) -> PreTrainedModel:
    """A model with the head of a task, in eval mode.

    `labels` given (empty for spans): to be fine-tuned; a head for these labels in this order is kept, any other is new.
    None: a fine-tuned model is expected. `dropout`: of hidden states and attention, while training; None: as it comes.

    Raises: InputError where the model cannot be read, or its head would be freshly initialised though `labels` is None.
    """
    settings: dict[str, Any] = {} if dropout is None else dropout_settings(read_config(name_or_path), dropout)
    if labels is not None and kind in _PROBLEMS:
        settings["problem_type"] = _PROBLEMS[kind]
    if labels:
        settings["id2label"] = dict(enumerate(labels))
        settings["label2id"] = {label: i for i, label in enumerate(labels)}
    if labels is None:
        refuse_other_head(name_or_path, kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, fresh = _load(TASK_CLASSES[kind], name_or_path, ignore_mismatched_sizes=bool(labels), **settings)
        theirs = label_names(read_config(name_or_path))
        if labels and kind != "regression" and not fresh and _folded(theirs) != _folded(labels):
            log.info(
                "the head of '%s' is of other labels (%s): it gets a new one", name_or_path, ", ".join(theirs[:10])
            )
            _renew_head_(model)
    if labels is not None and hasattr(model.config, "no_answer_threshold"):
        del model.config.no_answer_threshold  # of the task it was tuned for
    if labels is None and fresh:
        raise InputError(
            f"model '{name_or_path}' is not fine-tuned for this: {_some(fresh)} would start at random; "
            "fine-tune it first with: affinage finetune MODEL --task TASK --data DATA --out DIR"
        )
    return model


def label_names(config: PretrainedConfig) -> list[str]:
    """Names of the classes, in the model's order."""
    return [str(name) for _, name in sorted((config.id2label or {}).items())]


def _folded(names: Sequence[str]) -> list[str]:
    return [name.casefold() for name in names]


@torch.no_grad()
def _renew_head_(model: PreTrainedModel) -> None:
    """Start what lies outside of the encoder at random."""
    new = dict(type(model)(model.config).named_parameters())
    for name, parameter in model.named_parameters():
        if not name.startswith(f"{model.base_model_prefix}.") and name in new:
            parameter.copy_(new[name])


def refuse_other_head(name_or_path: str | Path, kind: Kind) -> None:
    """Raises: InputError where the config says that the model was fine-tuned for another kind of task."""
    suffix = _SUFFIXES["sequence" if kind in _PROBLEMS else kind]
    config = read_config(name_or_path)
    architectures = class_names(config)
    heads = [a for a in architectures if any(a.endswith(s) for s in _SUFFIXES.values())]
    if heads and not any(a.endswith(suffix) for a in heads):
        raise InputError(f"model '{name_or_path}' is a {heads[0]}; this task needs a …{suffix}")
    problem = problem_of(config)
    if kind in _PROBLEMS and problem not in (None, _PROBLEMS[kind]):
        raise InputError(
            f"model '{name_or_path}' is fine-tuned for {problem} (its config's problem_type); this task is "
            f"{_PROBLEMS[kind]}"
        )


def problem_of(config: PretrainedConfig) -> str | None:
    """`problem_type` of a sequence classifier's config; None where it does not say."""
    found = getattr(config, "problem_type", None)
    return found if isinstance(found, str) else None


def head_kind(config: PretrainedConfig) -> Kind | None:
    """What the head of a model is for, as its config says; None without one. Pairs of texts are not told from texts."""
    names = class_names(config)
    found = next((k for k, suffix in _SUFFIXES.items() if any(name.endswith(suffix) for name in names)), None)
    if found != "sequence":
        return found
    problem = problem_of(config) or ("regression" if config.num_labels == 1 else None)
    return next((kind for kind in _AFTER_PROBLEM if _PROBLEMS[kind] == problem), "sequence")


def has_task_head(name_or_path: str | Path, kind: Kind) -> bool:
    """Whether the config says that the model was fine-tuned for this kind of task.

    Raises: InputError where it was for another.
    """
    refuse_other_head(name_or_path, kind)
    return head_kind(read_config(name_or_path)) is not None


def check_fit(tokenizer: PreTrainedTokenizerFast, config: PretrainedConfig, *, where: str | Path) -> None:
    """Raises: InputError where the tokenizer makes ids that the model's embeddings have no row for."""
    largest = max(tokenizer.get_vocab().values())
    if largest >= config.vocab_size:
        raise InputError(
            f"model '{where}': its tokenizer makes ids up to {largest}, its embeddings have {config.vocab_size} rows; "
            "this tokenizer belongs to another model"
        )


def max_length(config: PretrainedConfig) -> int:
    """Tokens a row may have, special tokens included."""
    return int(config.max_position_embeddings) - position_offset(config)


def weights_fingerprint(name_or_path: str | Path) -> str:
    """sha256 of a folder's weights and structure, so that a run knows its model again; a hub name stands for itself."""
    digest = hashlib.sha256()
    folder = Path(located(name_or_path))
    for path in (*sorted(folder.glob("*.safetensors")), *folder.glob(STRUCTURE)):
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest() if folder.is_dir() else str(name_or_path)


def task_of(config: PretrainedConfig) -> str | None:
    """The task that `affinage finetune` noted in the config, if it did."""
    task = getattr(config, "affinage_task", None)
    return task if isinstance(task, str) else None


def no_answer_threshold(config: PretrainedConfig) -> float | None:
    """From which margin on the model's questions have no answer (logits); None: every question has one."""
    value = getattr(config, "no_answer_threshold", None)
    return float(value) if isinstance(value, int | float) else None


def _load(auto_class: Any, name_or_path: str | Path, **settings: Any) -> tuple[PreTrainedModel, list[str]]:
    """The model in float32 and eval mode, and the weights of its head that were not in the folder.

    Raises: InputError where it cannot be read, or weights of the encoder (the unused pooler aside) are not there.
    """

    def load(name: str) -> Any:
        if is_compressed(name):
            return load_compressed(auto_class, name, **settings)
        return auto_class.from_pretrained(
            name,
            dtype=torch.float32,
            use_safetensors=True,  # a pickle can run code
            trust_remote_code=False,  # None asks whoever sits at a terminal
            output_loading_info=True,
            **settings,
        )

    model, info = _read(name_or_path, load)
    missing = set(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]}
    fresh = sorted(key for key in missing if ".pooler." not in key)
    # Only a head may be new: an encoder that is partly random would train, and nobody would know.
    if inside := [key for key in fresh if key.startswith(f"{model.base_model_prefix}.")]:
        raise InputError(
            f"model '{name_or_path}': its weights are not those its config.json describes: {_some(inside)} missing or "
            "of another shape; fetch or save the model again"
        )
    layers = f"{layout_of(model.config).layers}."
    if left := sorted(key for key in info.get("unexpected_keys", ()) if key.startswith(layers)):
        raise InputError(
            f"model '{name_or_path}': its config.json describes fewer layers, or others, than its weights have: "
            f"{_some(left)} would be left out; fetch or save the model again"
        )
    without_cache_(model)
    return model.eval(), fresh


def _read(name_or_path: str | Path, read: Callable[[str], Any], *, file: str = "config.json") -> Any:
    name = located(name_or_path)
    path = Path(name)
    looks_like_path = path.is_absolute() or name.startswith((".", "~")) or len(path.parts) > 2
    try:
        is_there, is_folder = path.exists(), path.is_dir()
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise InputError(f"model '{name}' cannot be read: {error.strerror or error}") from None
    if is_folder:
        if not (path / file).is_file():
            raise InputError(f"model '{name}': the folder holds no {file}, so it is not what transformers saves")
        stored = any(path.glob("*.safetensors"))
        if not stored and any((path / graph).is_file() for graph in _GRAPHS):
            raise InputError(
                f"model '{name}' is an exported graph, for predict and serve; here give the model it was made of"
            )
        if not stored and any(path.glob("*.bin")):
            raise InputError(f"model '{name}': {_PICKLED}")
    elif is_there or looks_like_path:
        raise InputError(f"model '{name}': there is no such folder")
    else:
        log.info("'%s' is no folder here: asking the hub", name)
    try:
        return read(name)
    except _UNREADABLE as error:
        # transformers and safetensors report an unreadable or unknown model with all of these.
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if not is_folder and "cannot be loaded with `safetensors`" in first:
            raise InputError(f"model '{name}': {_PICKLED}; then give the folder in place of the name") from error
        hint = "" if is_folder else " (no such folder here, and the hub did not give it)"
        raise InputError(f"model '{name}' cannot be loaded{hint}: {first}") from error


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
