"""A fresh masked language model of a given shape."""

from typing import Any

from transformers import AutoConfig, AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from affinage.errors import InputError
from affinage.models.layout import LAYOUTS, dropout_settings
from affinage.recipe import StudentSpec

_DISTILBERT_NAMES = {
    "num_hidden_layers": "n_layers",
    "hidden_size": "dim",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "hidden_act": "activation",
}

_SHAPE = (
    "architecture",
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "max_length",
)


def check_shape(spec: StudentSpec) -> None:
    """Raises: InputError where a size is missing or the heads do not divide the width."""
    missing = [key for key in _SHAPE if getattr(spec, key) is None]
    if missing:
        raise InputError(f"pre-training needs the model's shape; missing: {', '.join(f'student.{k}' for k in missing)}")
    assert spec.hidden_size and spec.num_attention_heads
    if spec.hidden_size % spec.num_attention_heads:
        raise InputError(
            f"student.hidden_size {spec.hidden_size} is not a multiple of student.num_attention_heads "
            f"{spec.num_attention_heads}"
        )


def fresh_masked_lm(
    spec: StudentSpec, tokenizer: PreTrainedTokenizerFast, *, like: PretrainedConfig | None = None
) -> PreTrainedModel:
    """A randomly initialised masked language model of the shape `spec`, for this tokenizer's vocabulary.

    `like`: the config of the model whose layers will be copied into it.

    Raises: InputError as `check_shape`.
    """
    check_shape(spec)
    assert spec.architecture and spec.max_length
    after_pad = LAYOUTS[spec.architecture].positions_after_pad
    dropout = 0.1 if spec.dropout is None else spec.dropout
    values: dict[str, Any] = {
        "num_hidden_layers": spec.num_hidden_layers,
        "hidden_size": spec.hidden_size,
        "num_attention_heads": spec.num_attention_heads,
        "intermediate_size": spec.intermediate_size,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": spec.max_length + (tokenizer.pad_token_id + 1 if after_pad else 0),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    if like is not None:  # copied layers only compute the same with the same activation and the same epsilon
        values["hidden_act"] = getattr(like, "hidden_act", None) or like.activation
        values["layer_norm_eps"] = getattr(like, "layer_norm_eps", 1e-12)
    if spec.architecture == "distilbert":
        values.pop("layer_norm_eps", None)  # fixed at 1e-12 there
        values = {_DISTILBERT_NAMES.get(key, key): value for key, value in values.items()}
    elif after_pad:
        values["type_vocab_size"] = 1
    return _from_config(AutoConfig.for_model(spec.architecture, **values))


def student_masked_lm(teacher: PreTrainedModel, *, layers: int, dropout: float | None = None) -> PreTrainedModel:
    """A randomly initialised model of the teacher's architecture and widths with another number of layers."""
    config: PretrainedConfig = teacher.config.__class__.from_dict(teacher.config.to_dict())
    setattr(config, LAYOUTS[config.model_type].num_hidden_layers, layers)
    config.update(dropout_settings(config, dropout))
    return _from_config(config)


def _from_config(config: PretrainedConfig) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForMaskedLM.from_config(config)
    return model
