"""Where each architecture keeps its parts: a table, not code."""

from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from affinage.errors import InputError
from affinage.models.families import FAMILIES, FLAUBERT_NORMS_FIRST, LEGACY_FREE_DEBERTA
from affinage.models.parts import Layout

_BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}


def _embeddings(base: str, *, token_type: bool = True) -> dict[str, str | None]:
    return {
        "base": base,
        "word_embeddings": f"{base}.embeddings.word_embeddings",
        "position_embeddings": f"{base}.embeddings.position_embeddings",
        "token_type_embeddings": f"{base}.embeddings.token_type_embeddings" if token_type else None,
        "embedding_norm": f"{base}.embeddings.LayerNorm",
    }


def _roberta(model_type: str) -> Layout:
    return Layout(
        model_type=model_type,
        **_embeddings("roberta"),  # type: ignore[arg-type]
        layers="roberta.encoder.layer",
        **_BERT_LAYER,  # type: ignore[arg-type]
        head_dense="lm_head.dense",
        head_norm="lm_head.layer_norm",
        decoder="lm_head.decoder",
        head_activation=None,
        positions_after_pad=True,
    )


LAYOUTS: dict[str, Layout] = {
    "roberta": _roberta("roberta"),
    "camembert": _roberta("camembert"),
    "xlm-roberta": _roberta("xlm-roberta"),
    "bert": Layout(
        model_type="bert",
        **_embeddings("bert"),  # type: ignore[arg-type]
        layers="bert.encoder.layer",
        **_BERT_LAYER,  # type: ignore[arg-type]
        head_dense="cls.predictions.transform.dense",
        head_norm="cls.predictions.transform.LayerNorm",
        decoder="cls.predictions.decoder",
        head_activation="hidden_act",
        positions_after_pad=False,
        next_sentence="cls.seq_relationship",
    ),
    "distilbert": Layout(
        model_type="distilbert",
        **_embeddings("distilbert", token_type=False),  # type: ignore[arg-type]
        layers="distilbert.transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        intermediate="ffn.lin1",
        output="ffn.lin2",
        output_norm="output_layer_norm",
        head_dense="vocab_transform",
        head_norm="vocab_layer_norm",
        decoder="vocab_projector",
        head_activation="activation",
        positions_after_pad=False,
        num_hidden_layers="n_layers",
        intermediate_size="hidden_dim",
        dropouts=("dropout", "attention_dropout"),
    ),
    **FAMILIES,
}


def tensor_of(model: nn.Module, path: str, name: str = "weight") -> Tensor:
    """The parameter `name` of the part at `path`."""
    tensor = getattr(model.get_submodule(path), name)
    assert isinstance(tensor, Tensor)
    return tensor


def layout_of(config: PretrainedConfig) -> Layout:
    """The layout of a model's config. Raises: InputError for an architecture, or a variant of one, that has none."""
    kind = config.model_type
    if kind not in LAYOUTS:
        raise InputError(f"architecture '{kind}' is not supported yet; known: {', '.join(sorted(LAYOUTS))}")
    for (architecture, entry), (known, why) in _VARIANTS.items():
        if architecture == kind and getattr(config, entry, known) != known:
            raise InputError(f"architecture '{kind}' with {entry}={getattr(config, entry)} is not supported: {why}")
    if kind == "deberta-v2" and not config.legacy:
        return LEGACY_FREE_DEBERTA
    if kind == "flaubert" and config.pre_norm:
        return FLAUBERT_NORMS_FIRST
    return LAYOUTS[kind]


_VARIANTS = {
    ("deberta-v2", "conv_kernel_size"): (0, "its convolution mixes the texts of a packed row"),
    ("albert", "inner_group_num"): (1, "its layers are groups of layers"),
    ("flaubert", "asm"): (False, "its adaptive softmax has no logits"),
    ("flaubert", "causal"): (False, "it is no bidirectional encoder"),
    ("flaubert", "n_langs"): (1, "which language a text is in is not known here"),
}
"""(architecture, config entry) -> the value that is supported, and why no other."""


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The encoder's layers, from the first on; one that stands in several places stands there in the list too.

    Where an architecture keeps the parts of a layer in several lists, one of its layers is what stands at a place of
    all of them, by the lists' names; the model itself does not call it.
    """
    layout = layout_of(model.config)
    base = model if model.base_model is model else model.get_submodule(layout.base)
    names = [path.removeprefix(f"{layout.base}.") for path in (layout.layers, *layout.more_layers)]
    lists = [base.get_submodule(name) for name in names]
    assert all(isinstance(one, nn.ModuleList) for one in lists)
    rows = zip(*(list(one) for one in lists), strict=True)  # type: ignore[call-overload]
    if not layout.more_layers:
        return [layer for (layer,) in rows]
    return [nn.ModuleDict(dict(zip((name.rpartition(".")[2] for name in names), row, strict=True))) for row in rows]


def size_of_heads(attention: nn.Module) -> int:
    """Of an attention module, whatever the architecture calls it."""
    size = getattr(attention, "attention_head_size", None) or attention.head_dim
    assert isinstance(size, int)
    return size


def class_names(config: PretrainedConfig) -> list[str]:
    """The model classes a config names, in the usual form: FlauBERT's are FlaubertWithLMHeadModel and
    FlaubertForQuestionAnsweringSimple, where others say ForMaskedLM and ForQuestionAnswering.
    """
    return [usual_class_name(name) for name in config.architectures or ()]


def usual_class_name(name: str) -> str:
    """`class_names`, for one."""
    return name.replace("WithLMHeadModel", "ForMaskedLM").removesuffix("Simple")


def position_offset(config: PretrainedConfig) -> int:
    """Row of the position table that a text's first token uses."""
    if not layout_of(config).positions_after_pad:
        return 0
    if config.pad_token_id is None:
        raise InputError(
            f"architecture '{config.model_type}': its config.json has no pad_token_id, after which positions begin"
        )
    return int(config.pad_token_id) + 1


def depth_of(config: PretrainedConfig) -> int:
    """Number of layers, whatever the architecture calls it."""
    return int(getattr(config, layout_of(config).num_hidden_layers))


def dropout_settings(config: PretrainedConfig, rate: float | None) -> dict[str, float]:
    """Config entries that give hidden states and attention the dropout `rate`; none where it is None."""
    return {} if rate is None else dict.fromkeys(layout_of(config).dropouts, rate)


def widths_of(config: PretrainedConfig) -> dict[str, int]:
    """`hidden_size`, `num_attention_heads` and `intermediate_size`, whatever the architecture calls them."""
    inner = layout_of(config).intermediate_size
    return {
        "hidden_size": int(config.hidden_size),
        "num_attention_heads": int(config.num_attention_heads),
        "intermediate_size": int(getattr(config, inner)) if inner else 4 * int(config.hidden_size),
    }
