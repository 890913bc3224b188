"""Where more families keep their parts: ELECTRA, FlauBERT, ALBERT, DeBERTa-v2, ModernBERT, EuroBERT, MobileBERT."""

from dataclasses import replace

from affinage.models.parts import Layout

_ELECTRA = Layout(
    model_type="electra",
    base="electra",
    word_embeddings="electra.embeddings.word_embeddings",
    position_embeddings="electra.embeddings.position_embeddings",
    token_type_embeddings="electra.embeddings.token_type_embeddings",
    embedding_norm="electra.embeddings.LayerNorm",
    layers="electra.encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    intermediate="intermediate.dense",
    output="output.dense",
    output_norm="output.LayerNorm",
    head_dense="generator_predictions.dense",
    head_norm="generator_predictions.LayerNorm",
    decoder="generator_lm_head",
)

_FLAUBERT = Layout(
    model_type="flaubert",
    base="transformer",
    word_embeddings="transformer.embeddings",
    layers="transformer.attentions",
    more_layers=("transformer.layer_norm1", "transformer.ffns", "transformer.layer_norm2"),
    query="attentions.q_lin",
    key="attentions.k_lin",
    value="attentions.v_lin",
    attention_output="attentions.out_lin",
    attention_norm="layer_norm1",
    intermediate="ffns.lin1",
    output="ffns.lin2",
    output_norm="layer_norm2",
    decoder="pred_layer.proj",
    num_hidden_layers="n_layers",
    intermediate_size="",
    dropouts=("dropout", "attention_dropout"),
    packed_mask="layers",
    keeps_cache=True,
)

FLAUBERT_NORMS_FIRST = replace(_FLAUBERT, norms_first=True)
"""FlauBERT with `pre_norm` in its config; no norm comes last."""

_ALBERT = Layout(
    model_type="albert",
    base="albert",
    word_embeddings="albert.embeddings.word_embeddings",
    token_type_embeddings="albert.embeddings.token_type_embeddings",
    layers="albert.encoder.albert_layer_groups",
    query="albert_layers.0.attention.query",
    key="albert_layers.0.attention.key",
    value="albert_layers.0.attention.value",
    head_dense="predictions.dense",
    head_norm="predictions.LayerNorm",
    head_activation="hidden_act",
    decoder="predictions.decoder",
    shares_layers=True,
)

_DEBERTA = Layout(
    model_type="deberta-v2",
    base="deberta",
    word_embeddings="deberta.embeddings.word_embeddings",
    token_type_embeddings="deberta.embeddings.token_type_embeddings",
    layers="deberta.encoder.layer",
    query="attention.self.query_proj",
    key="attention.self.key_proj",
    value="attention.self.value_proj",
    more_positions=("attention.self.pos_query_proj", "attention.self.pos_key_proj"),
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    intermediate="intermediate.dense",
    output="output.dense",
    output_norm="output.LayerNorm",
    head_dense="cls.predictions.transform.dense",
    head_norm="cls.predictions.transform.LayerNorm",
    head_activation="hidden_act",
    decoder="cls.predictions.decoder",
    packed_mask="encoder",
    more_in_scores="products with relative positions are added to them",
)

LEGACY_FREE_DEBERTA = replace(
    _DEBERTA,
    head_dense="lm_predictions.lm_head.dense",
    head_norm="lm_predictions.lm_head.LayerNorm",
    decoder="deberta.embeddings.word_embeddings",
    decoder_bias="lm_predictions.lm_head.bias",
)
"""DeBERTa-v2 with `legacy: false` in its config: the head of the original code, without a projection of its own."""

_MODERNBERT = Layout(
    model_type="modernbert",
    base="model",
    word_embeddings="model.embeddings.tok_embeddings",
    layers="model.layers",
    query="attn.Wqkv",
    key="attn.Wqkv",
    value="attn.Wqkv",
    attention_output="attn.Wo",
    attention_norm="attn_norm",
    intermediate="mlp.Wi",
    output="mlp.Wo",
    output_norm="mlp_norm",
    norms_first=True,
    final_norm="model.final_norm",
    head_dense="head.dense",
    head_norm="head.norm",
    head_activation="classifier_activation",
    decoder="decoder",
    dropouts=("mlp_dropout", "attention_dropout", "embedding_dropout"),
    packed_mask="kinds",
    gated=True,
    more_in_scores="queries and keys are turned by their positions before they meet",
)

_EUROBERT = Layout(
    model_type="eurobert",
    base="model",
    word_embeddings="model.embed_tokens",
    layers="model.layers",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_output="self_attn.o_proj",
    attention_norm="input_layernorm",
    intermediate="mlp.up_proj",
    gate="mlp.gate_proj",
    output="mlp.down_proj",
    output_norm="post_attention_layernorm",
    norms_first=True,
    final_norm="model.norm",
    decoder="lm_head",
    dropouts=("attention_dropout",),
    gated=True,
    more_in_scores=_MODERNBERT.more_in_scores,
)

_MOBILEBERT = Layout(
    model_type="mobilebert",
    base="mobilebert",
    word_embeddings="mobilebert.embeddings.word_embeddings",
    position_embeddings="mobilebert.embeddings.position_embeddings",
    token_type_embeddings="mobilebert.embeddings.token_type_embeddings",
    layers="mobilebert.encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    head_dense="cls.predictions.transform.dense",
    head_norm="cls.predictions.transform.LayerNorm",
    head_activation="hidden_act",
    decoder="cls.predictions.decoder",
    more_decoder="cls.predictions.dense",
)

_ALL = (_ELECTRA, _FLAUBERT, _ALBERT, _DEBERTA, _MODERNBERT, _EUROBERT, _MOBILEBERT)
FAMILIES = {layout.model_type: layout for layout in _ALL}
