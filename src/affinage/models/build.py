"""A fresh masked language model of a given shape."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoConfig, AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from affinage.errors import InputError
from affinage.models.layout import LAYOUTS, dropout_settings, layout_of, position_offset, widths_of
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
    """Raises: InputError where a size is missing, the heads do not divide the width, or it starts from a teacher."""
    if spec.init not in ("layers", "random"):
        raise InputError(f"student.init {spec.init} cuts a teacher's weights down; pre-training has none: leave it out")
    missing = [key for key in _SHAPE if getattr(spec, key) is None]
    if missing:
        raise InputError(f"pre-training needs the model's shape; missing: {', '.join(f'student.{k}' for k in missing)}")
    if spec.config:
        raise InputError("student.config is for distillation; leave it out")
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
    vocabulary = {
        # Of a kept vocabulary rows that no id has, which pad a table to a round size, are kept too.
        "vocab_size": len(tokenizer) if like is None or spec.tokenizer is not None else like.vocab_size,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    return _from_config(_config(spec, vocabulary, like=like))


def student_masked_lm(
    teacher: PreTrainedModel,
    spec: StudentSpec,
    *,
    depth: int,
    widths: Mapping[str, int],
    layers: Sequence[int] = (),
) -> PreTrainedModel:
    """A randomly initialised student: the teacher's vocabulary and lengths, `depth` layers, `widths` as `widths_of`
    names them, architecture and dropout of `spec` or else the teacher's.

    `layers`: those of the teacher that it will start from, where kinds of layers differ.
    """
    theirs: PretrainedConfig = teacher.config
    layout = layout_of(theirs)
    if spec.architecture in (None, theirs.model_type):
        entries = {**theirs.to_dict(), **spec.config}
        entries.pop("true_hidden_size", None)  # of MobileBERT: follows from the others
        config: PretrainedConfig = theirs.__class__.from_dict(entries)
        config.update({**_own_names(theirs, widths), layout.num_hidden_layers: depth})
        config.update(dropout_settings(config, spec.dropout))
        if kinds := getattr(theirs, "layer_types", None):
            config.layer_types = [kinds[i % len(kinds)] for i in layers or range(depth)]
        if hasattr(config, "layerdrop"):  # of FlauBERT: a layer left out has no states to compare
            config.layerdrop = 0.0
        return _from_config(config)
    dropout = getattr(theirs, layout.dropouts[0]) if spec.dropout is None else spec.dropout
    length = int(theirs.max_position_embeddings) - position_offset(theirs)
    shape = spec.model_copy(update={**widths, "num_hidden_layers": depth, "max_length": length, "dropout": dropout})
    ids = ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")
    return _from_config(_config(shape, {key: getattr(theirs, key, None) for key in ids}, like=theirs))


def _own_names(config: PretrainedConfig, widths: Mapping[str, int]) -> dict[str, Any]:
    """Config entries that give a model of this architecture the widths, what depends on them included."""
    named: dict[str, Any] = {key: widths[key] for key in ("hidden_size", "num_attention_heads")}
    if inner := layout_of(config).intermediate_size:
        named[inner] = widths["intermediate_size"]
    if getattr(config, "embedding_size", None) == config.hidden_size:
        named["embedding_size"] = widths["hidden_size"]
    if getattr(config, "pooler_hidden_size", None) == config.hidden_size:
        named["pooler_hidden_size"] = widths["hidden_size"]
    if (groups := getattr(config, "num_key_value_heads", None)) and widths != widths_of(config):
        shared = config.num_attention_heads // groups
        named["num_key_value_heads"] = max(1, widths["num_attention_heads"] // shared)
        named["head_dim"] = widths["hidden_size"] // widths["num_attention_heads"]
    return named


def _config(spec: StudentSpec, vocabulary: Mapping[str, Any], *, like: PretrainedConfig | None) -> PretrainedConfig:
    """Of the whole shape `spec`; `vocabulary`: its size and special ids."""
    assert spec.architecture and spec.max_length
    after_pad = LAYOUTS[spec.architecture].positions_after_pad
    dropout = 0.1 if spec.dropout is None else spec.dropout
    values: dict[str, Any] = {
        **vocabulary,
        "num_hidden_layers": spec.num_hidden_layers,
        "hidden_size": spec.hidden_size,
        "num_attention_heads": spec.num_attention_heads,
        "intermediate_size": spec.intermediate_size,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "max_position_embeddings": spec.max_length + (vocabulary["pad_token_id"] + 1 if after_pad else 0),
    }
    if like is not None:  # copied layers only compute the same with the same activation and the same epsilon
        names = ("hidden_act", "activation", "hidden_activation")
        values["hidden_act"] = next((getattr(like, name) for name in names if hasattr(like, name)), "gelu")
        values["layer_norm_eps"] = getattr(like, "layer_norm_eps", 1e-12)
    if spec.architecture == "distilbert":
        values.pop("layer_norm_eps", None)  # fixed at 1e-12 there
        values = {_DISTILBERT_NAMES.get(key, key): value for key, value in values.items()}
    elif after_pad:
        values["type_vocab_size"] = 1
    config: PretrainedConfig = AutoConfig.for_model(spec.architecture, **values)
    return config


def _from_config(config: PretrainedConfig) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForMaskedLM.from_config(config)
    return model
