"""The pieces of the vocabulary that a corpus uses, and the rows of the model that belong to them."""

import json
import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from tokenizers import AddedToken, Tokenizer
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from affinage.compression.base import Resources, Traits, compressors
from affinage.compression.vocabulary.pieces import needed_by, piece_counts, state_of, trimmed
from affinage.errors import InputError
from affinage.models.layout import layout_of

log = logging.getLogger(__name__)

_SPECIAL = ("unk_token", "pad_token", "cls_token", "sep_token", "bos_token", "eos_token", "mask_token")
_INDICES = ("pad_index", "bos_index", "eos_index", "unk_index", "mask_index")
"""FlauBERT's names for what others call `…_token_id`"""


@compressors.register("trim-vocabulary", source="Yang et al. 2022 (TextPruner), arXiv:2203.15996, section 3.1")
@dataclass(frozen=True)
class TrimVocabulary:
    """Takes out the pieces that the texts do not use, from tokenizer, embeddings and vocabulary projection.

    What all its pieces stay of is cut and computed as before, for Unigram, WordPiece and BPE. Special tokens, bytes and
    the letters of used pieces stay. Ids close ranks in their old order: a pad token at 1 stays there. Stock
    transformers load the result.
    """

    min_count: Annotated[int, Field(ge=1)] = 1
    """occurrences in the texts from which a piece stays"""

    needs: ClassVar[frozenset[str]] = frozenset({"texts"})
    traits: ClassVar[Traits] = Traits("vocabulary", takes=frozenset({"dense", "uneven", "sparse"}))

    def apply_with_tokenizer(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, resources: Resources
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
        texts = resources.texts
        if not texts or not any(text.strip() for text in texts):
            raise InputError("trim-vocabulary keeps what a corpus uses: give it texts, with --data or --corpus")
        table = embedding_of(model)
        backend = tokenizer.backend_tokenizer
        state = state_of(backend)
        used = {i for i, count in piece_counts(backend, texts).items() if count >= self.min_count}
        kept = needed_by(state, used | special_ids(model.config), backend, texts)
        if layout_of(model.config).positions_after_pad:
            kept |= set(range(int(model.config.pad_token_id) + 1))  # positions count from the pad token's id
        rows = sorted(i for i in kept if i < table.num_embeddings)
        log.info("trim-vocabulary: %d of %d pieces stay", len(rows), table.num_embeddings)
        made = Tokenizer.from_str(json.dumps(trimmed(state, rows), ensure_ascii=False))
        _check_same(backend, made, rows, texts)
        pruned = deepcopy(model).eval()
        keep_rows_(pruned, rows)
        return pruned, _wrapped(made, tokenizer)


def embedding_of(model: PreTrainedModel) -> nn.Embedding:
    """The word embedding table. Raises: InputError where it is none of plain rows."""
    table = model.get_submodule(layout_of(model.config).word_embeddings)
    if not isinstance(table, nn.Embedding):
        raise InputError(f"trim-vocabulary: the embeddings are a {type(table).__name__}; trim first")
    return table


def special_ids(config: PretrainedConfig) -> set[int]:
    """Ids that the config names and that the table has rows for."""
    return {i for i in _named_ids(config).values() if 0 <= i < config.vocab_size}


@torch.no_grad()
def keep_rows_(model: PreTrainedModel, rows: Sequence[int]) -> None:
    """Leave these rows of the vocabulary (rising) in embeddings, projection, bias and config."""
    layout, table = layout_of(model.config), embedding_of(model)
    before, chosen = table.num_embeddings, torch.tensor(rows)
    new = {old: place for place, old in enumerate(rows)}
    bias = layout.decoder_bias or f"{layout.decoder}.bias"
    by_row = (f"{layout.word_embeddings}.weight", f"{layout.decoder}.weight", bias)
    by_column = (f"{layout.more_decoder}.weight",) if layout.more_decoder else ()
    made: dict[int, nn.Parameter] = {}
    named = dict(model.named_parameters(remove_duplicate=False))
    for path in (*by_row, *by_column):
        if path in named and id(named[path]) not in made:
            old = named[path]
            value = old[chosen] if path in by_row else old[:, chosen]
            made[id(old)] = nn.Parameter(value.clone(), requires_grad=old.requires_grad)
    for module in model.modules():
        mine = {name: made[id(old)] for name, old in module._parameters.items() if id(old) in made}
        for name, parameter in mine.items():  # a projection or a bias that is tied stays so
            setattr(module, name, parameter)
        sizes = ("num_embeddings", "out_features", "in_features") if mine else ()
        for name in (*sizes, "vocab_size", "n_words"):
            if getattr(module, name, None) == before:
                setattr(module, name, len(rows))
        for name in ("padding_idx", "pad_index"):
            if isinstance(pad := getattr(module, name, None), int) and (mine or not isinstance(module, nn.Embedding)):
                setattr(module, name, new[pad])
    for name, old_id in _named_ids(model.config).items():
        setattr(model.config, name, new.get(old_id))
    model.config.vocab_size = len(rows)


def rows_of(before: PreTrainedTokenizerFast, after: PreTrainedTokenizerFast, size: int) -> list[int]:
    """Which of the table's rows the `size` rows of a trimmed vocabulary were; one without a piece follows the last.

    Raises: InputError where the new vocabulary has a piece that the old one has not.
    """
    old, new = before.get_vocab(), {number: piece for piece, number in after.get_vocab().items()}
    rows: list[int] = []
    for number in range(size):
        piece = new.get(number)
        if piece is not None and piece not in old:
            raise InputError(
                f"recovery compares with the uncompressed model, which has no piece '{piece}': leave recover out"
            )
        rows.append(old[piece] if piece is not None else rows[-1] + 1 if rows else 0)
    return rows


def _named_ids(config: PretrainedConfig) -> dict[str, int]:
    entries = config.to_dict()
    names = [name for name in entries if name.endswith("_token_id") or name in _INDICES]
    return {name: entries[name] for name in names if isinstance(entries[name], int)}


def _check_same(before: Tokenizer, after: Tokenizer, rows: Sequence[int], texts: Sequence[str]) -> None:
    """Raises: InputError where a text whose pieces all stay is cut in another way."""
    new: Mapping[int, int] = {old: place for place, old in enumerate(rows)}
    for start in range(0, len(texts), 1000):
        part = list(texts[start : start + 1000])
        for text, old, now in zip(part, before.encode_batch(part), after.encode_batch(part), strict=True):
            if all(i in new for i in old.ids) and [new[i] for i in old.ids] != now.ids:
                raise InputError(
                    f"this tokenizer cannot be trimmed: it would cut “{text[:60]}” in another way; please report it"
                )


def _wrapped(backend: Tokenizer, like: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A saved CamembertTokenizer would build its pre-tokenizer anew when loaded, so it becomes a plain fast one."""
    known = {str(token): token for token in like.added_tokens_decoder.values()}
    special: dict[str, AddedToken | str] = {}
    for name in _SPECIAL:
        token = getattr(like, name, None)
        if token is not None:
            special[name] = known.get(str(token), str(token))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **special,
        model_max_length=like.model_max_length,
        model_input_names=like.model_input_names,
        padding_side=like.padding_side,
        truncation_side=like.truncation_side,
    )
