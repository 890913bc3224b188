"""Tiny random models and tokenizers of every architecture, made in memory: no network, no files but the caller's."""

from collections import Counter
from copy import deepcopy
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from affinage.data.vocabulary import train_unigram
from affinage.recipe import TokenizerSpec

ARCHITECTURES = ("camembert", "roberta", "bert", "distilbert")

FAMILIES = (*ARCHITECTURES, "xlm-roberta", "electra", "flaubert", "albert", "deberta-v2", "modernbert", "eurobert")

# Written for these tests.
SENTENCES = (
    "Le petit marché du village ouvre dès l'aube, bien avant l'école.",
    "Claire a quitté Lyon pour travailler chez un fromager du Jura.",
    "L'affinage demande de la patience, de la fraîcheur et un bon couteau.",
    "Aujourd'hui, le train de Bordeaux n'est pas arrivé à l'heure prévue.",
    "On entend la pluie sur les toits, puis le silence revient peu à peu.",
    "Qui aurait cru qu'un si vieux moulin tournerait encore cet hiver ?",
    "The dairy keeps its best wheels at the back of a cool, dark cellar.",
    "Nobody on the platform knew why the evening express had stopped there.",
    "She wrote three letters to Marseille and never received an answer.",
    "A young baker opened his shop near the river, and the queue grew long.",
)

_HEADS: dict[str, Any] = {
    "base": AutoModel,
    "mlm": AutoModelForMaskedLM,
    "sequence": AutoModelForSequenceClassification,
    "pair": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
    "span": AutoModelForQuestionAnswering,
}


_OWN: dict[str, dict[str, Any]] = {
    "electra": {"embedding_size": 8},
    "albert": {"embedding_size": 8},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    },
    "modernbert": {
        "local_attention": 6,
        "layer_types": ["full_attention", "sliding_attention"] * 2,
        "cls_token_id": 2,
        "sep_token_id": 3,
    },
    "eurobert": {"num_key_value_heads": 1, "mask_token_id": 4},
    "mobilebert": {"embedding_size": 4, "intra_bottleneck_size": 24, "num_feedforward_networks": 1},
}


def tiny_tokenizer(architecture: str = "camembert") -> PreTrainedTokenizerFast:
    """Unigram for CamemBERT, byte-level BPE for RoBERTa, WordPiece for BERT and DistilBERT; 150 to 320 pieces."""
    kinds = {"camembert": "unigram", "xlm-roberta": "unigram", "roberta": "byte-level"}
    # A copy: a call with `truncation` or `padding` changes a tokenizer for good.
    return deepcopy(_tokenizer(kinds.get(architecture, "wordpiece")))


@lru_cache
def _tokenizer(kind: str) -> PreTrainedTokenizerFast:
    if kind == "unigram":
        return train_unigram(SENTENCES * 3, TokenizerSpec(vocab_size=150), max_length=64)
    if kind == "byte-level":
        return _byte_level()
    return _wordpiece()


def tiny_model(architecture: str = "camembert", head: str = "mlm", **config: Any) -> PreTrainedModel:
    """A random float32 model in eval mode: 4 layers, width 16, 2 heads, 64 tokens."""
    tokenizer = tiny_tokenizer(architecture)
    offset = 2 if architecture in ("camembert", "roberta", "xlm-roberta") else 0
    values: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 64 + offset,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    if architecture == "flaubert":
        values |= {"n_layers": 4, "emb_dim": 16, "n_heads": 2}
    elif architecture == "distilbert":
        values |= {"n_layers": 4, "dim": 16, "n_heads": 2, "hidden_dim": 32}
    else:
        values |= {
            "num_hidden_layers": 4,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "intermediate_size": 32,
        } | _OWN.get(architecture, {"type_vocab_size": 1 if offset else 2})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = _HEADS[head].from_config(AutoConfig.for_model(architecture, **values | config))
    return model.eval()


def save_tiny(folder: Path, architecture: str = "camembert", head: str = "mlm", **config: Any) -> Path:
    """A model folder as transformers writes it."""
    path = folder / f"{architecture}-{head}"
    tiny_model(architecture, head, **config).save_pretrained(path)
    tiny_tokenizer(architecture).save_pretrained(path)
    return path


def _wordpiece() -> PreTrainedTokenizerFast:
    # The trainer of `tokenizers` breaks ties by chance, and no test should. Here what covers most text comes first.
    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = [w for s in SENTENCES for w, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(s))]
    letters = sorted(set("".join(words)))
    covered = Counter[str]()
    for word in words:
        for start, end in combinations(range(len(word) + 1), 2):
            if end - start > 1:
                covered[("##" if start else "") + word[start:end]] += end - start
    parts = sorted(covered, key=lambda part: (-covered[part], part))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *parts])
    vocabulary = {piece: index for index, piece in enumerate(list(pieces)[:250])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def _byte_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=64,
    )
