"""A model as stock ALBERT: layers shared in groups, embeddings factorised, loaded without affinage."""

import logging
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AlbertForQuestionAnswering,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.sharing.albert_embeddings import Narrow, copied, narrowed
from affinage.compression.sharing.layers import Start, start_of
from affinage.errors import InputError
from affinage.models.layout import LAYOUTS, depth_of, layout_of, widths_of

log = logging.getLogger(__name__)

_HEADS: dict[str, Any] = {
    "ForMaskedLM": AlbertForMaskedLM,
    "ForSequenceClassification": AlbertForSequenceClassification,
    "ForTokenClassification": AlbertForTokenClassification,
    "ForQuestionAnswering": AlbertForQuestionAnswering,
}
_LAYER = {
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "attention_output": "attention.dense",
    "attention_norm": "attention.LayerNorm",
    "intermediate": "ffn",
    "output": "ffn_output",
    "output_norm": "full_layer_layer_norm",
}
"""a layer's parts in `Layout` -> in ALBERT"""
_CLASSIFIERS = (
    ("bert.pooler.dense", "classifier"),
    ("pre_classifier", "classifier"),
    ("classifier.dense", "classifier.out_proj"),
)
"""where sequence classifiers have the map of the first token's vector, and that to the classes"""
_KEPT = ("id2label", "label2id", "problem_type", "affinage_task", "no_answer_threshold", "bos_token_id", "eos_token_id")


@compressors.register("albert", source="Lan et al. 2020 (ALBERT), arXiv:1909.11942, section 3.1")
@dataclass(frozen=True)
class Albert:
    """Stock ALBERT: `groups` of neighbouring layers with one set of weights each, and narrower embeddings.

    A group starts from its first, middle or last layer, or the mean of all. `embedding_size`: a sixth of the width
    where it is not said; the embeddings' main directions start it. The start is approximate: ALBERT normalises before
    it widens, and its head is narrower. Train on (heal) before judging it.
    """

    embedding_size: Annotated[int, Field(ge=2)] | None = None
    groups: Annotated[int, Field(ge=1)] = 1
    start: Start = "middle"

    needs: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[Traits] = Traits(
        paradigm="sharing", takes=frozenset({"dense"}), leaves=frozenset({"stock-albert"})
    )

    @torch.no_grad()
    def apply(self, model: PreTrainedModel, resources: Resources) -> PreTrainedModel:
        config = model.config
        head = self._check(model)
        narrow = copied(model) if _is_narrow(config) else narrowed(model, self._width(config))
        with torch.random.fork_rng(devices=[]):
            made: PreTrainedModel = _HEADS[head](self._config(config, narrow))
        base = made.get_submodule("albert")
        narrow.put_(base)
        self._layers_(model, base)
        if head == "ForMaskedLM":
            narrow.put_head_(model, made)
        elif head == "ForSequenceClassification":
            dense, out = next(pair for pair in _CLASSIFIERS if _has(model, pair[0]))
            _copy(model.get_submodule(dense), base.get_submodule("pooler"))
            _copy(model.get_submodule(out), made.get_submodule("classifier"))
        else:
            name = "classifier" if head == "ForTokenClassification" else "qa_outputs"
            _copy(model.get_submodule(name), made.get_submodule(name))
        made.tie_weights()
        log.warning("albert: an approximate start, to be healed by distillation before it is judged")
        whole: PreTrainedModel = made.to(model.device).eval()  # type: ignore[arg-type]
        return whole

    def _check(self, model: PreTrainedModel) -> str:
        """The head's kind. Raises: InputError where the architecture, its head or a field does not fit."""
        config, layout = model.config, layout_of(model.config)
        if layout.model_type == "albert":
            raise InputError("albert: the model is an ALBERT already; leave this step out")
        if not layout.whole:
            known = ", ".join(sorted(name for name, known in LAYOUTS.items() if known.whole))
            raise InputError(
                f"albert: the parts of a '{config.model_type}' are not ALBERT's; known: {known}; "
                "share-layers takes others"
            )
        head = next((suffix for suffix in _HEADS if type(model).__name__.endswith(suffix)), None)
        if head is None:
            raise InputError(
                f"albert: a {type(model).__name__} has no counterpart; give a masked language or task model"
            )
        if self.groups > depth_of(config):
            raise InputError(f"albert: {self.groups} groups of {depth_of(config)} layers; at most as many as layers")
        if _is_narrow(config) and self.embedding_size not in (None, config.embedding_size):
            raise InputError(
                f"albert: the model's embeddings have a width of their own, {config.embedding_size}; leave "
                "embedding_size out"
            )
        if not _is_narrow(config) and self._width(config) > config.hidden_size:
            raise InputError(f"albert: embedding_size {self._width(config)} is above the width {config.hidden_size}")
        return head

    def _width(self, config: PretrainedConfig) -> int:
        """128 of 768, as in the paper: a sixth, rounded up to a multiple of 8."""
        return self.embedding_size or min(8 * -(-config.hidden_size // 48), config.hidden_size)

    def _config(self, theirs: PretrainedConfig, narrow: Narrow) -> AlbertConfig:
        layout = layout_of(theirs)
        return AlbertConfig(
            vocab_size=theirs.vocab_size,
            embedding_size=narrow.words.shape[1],
            num_hidden_layers=depth_of(theirs),
            num_hidden_groups=self.groups,
            hidden_act=getattr(theirs, "hidden_act", None) or theirs.activation,
            hidden_dropout_prob=getattr(theirs, layout.dropouts[0]),
            attention_probs_dropout_prob=getattr(theirs, layout.dropouts[1]),
            classifier_dropout_prob=_classifier_dropout(theirs),
            max_position_embeddings=len(narrow.positions),
            type_vocab_size=len(narrow.types),
            layer_norm_eps=getattr(theirs, "layer_norm_eps", 1e-12),
            pad_token_id=theirs.pad_token_id,
            **widths_of(theirs),  # type: ignore[arg-type]  # its values are only these three
            **{key: getattr(theirs, key) for key in _KEPT if getattr(theirs, key, None) is not None},
        )

    def _layers_(self, model: PreTrainedModel, base: nn.Module) -> None:
        layout, depth = layout_of(model.config), depth_of(model.config)
        owners = [int(i / (depth / self.groups)) for i in range(depth)]  # as stock ALBERT divides them
        for group in range(self.groups):
            members = [i for i in range(depth) if owners[i] == group]
            if not members:
                raise InputError(f"albert: {self.groups} groups of {depth} layers leave one empty; take fewer")
            ours = base.get_submodule(f"encoder.albert_layer_groups.{group}.albert_layers.0")
            for part, name in _LAYER.items():
                states = [
                    model.get_submodule(f"{layout.layers}.{i}.{getattr(layout, part)}").state_dict() for i in members
                ]
                ours.get_submodule(name).load_state_dict(start_of(states, self.start))


def _is_narrow(config: PretrainedConfig) -> bool:
    """Whether the embeddings have a width of their own already (ELECTRA's)."""
    return bool(getattr(config, "embedding_size", config.hidden_size) != config.hidden_size)


def _classifier_dropout(config: PretrainedConfig) -> float:
    own = getattr(config, "classifier_dropout", None) or getattr(config, "seq_classif_dropout", None)
    return float(own if own is not None else getattr(config, layout_of(config).dropouts[0]))


def _has(model: nn.Module, path: str) -> bool:
    return any(name == path for name, _ in model.named_modules())


def _copy(source: nn.Module, target: nn.Module) -> None:
    target.load_state_dict(source.state_dict())
