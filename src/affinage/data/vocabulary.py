"""Training a vocabulary."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from affinage.data.corpus import corpus_lines, spread
from affinage.errors import InputError
from affinage.recipe import TokenizerSpec

log = logging.getLogger(__name__)

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_WORD_MARK = "▁"
_FREQUENT = 10
"""Occurrences from which a whole word is a candidate piece."""
_MAX_LINE = 2_000
"""Characters of a line that the vocabulary is learned from; Unigram training slows down on longer ones."""


def train_vocabulary(files: Sequence[Path | str], spec: TokenizerSpec, *, max_length: int) -> PreTrainedTokenizerFast:
    """The vocabulary of a corpus, from as much of it as `spec` allows, spread over all of it.

    Raises: as `train_unigram`, and DataError for what is not text.
    """
    share = min(1.0, spec.training_bytes / max(sum(len(line.encode()) for line in corpus_lines(files)), 1))
    log.info("training a vocabulary of %d pieces on %.0f %% of the corpus", spec.vocab_size, 100 * share)
    return train_unigram(spread(corpus_lines(files), share), spec, max_length=max_length)


def train_unigram(lines: Iterable[str], spec: TokenizerSpec, *, max_length: int) -> PreTrainedTokenizerFast:
    """A SentencePiece-like Unigram tokenizer (Kudo 2018, arXiv:1804.10959) with CamemBERT's template.

    Punctuation stands apart and an apostrophe ends its piece (l'|école), so that no piece crosses the border of a word.

    Raises: InputError where the text is too small for the vocabulary asked for.
    """
    normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace("’", "'"), normalizers.Replace("\t", " ")]
    )
    pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=_WORD_MARK, prepend_scheme="first"),
            pre_tokenizers.Split(Regex(rf"[^\w\s'{_WORD_MARK}]"), behavior="isolated"),
            pre_tokenizers.Split("'", behavior="merged_with_previous"),
        ]
    )
    texts, words = [], Counter[str]()
    for line in _sample(lines, spec.training_bytes):
        pre_tokens = [piece for piece, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(line))]
        words.update(pre_tokens)
        texts.append(" ".join(pre_tokens))
    # The trainer takes as candidates what occurs in two different words, so that a frequent word which is part of no
    # other (était, chez, l') would never become a piece. A second form of each, once, makes it a candidate.
    texts.append(" ".join(f"{word}0" for word, count in words.items() if count >= _FREQUENT and len(word) > 1))
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.UnigramTrainer(
        vocab_size=spec.vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        unk_token="<unk>",
        show_progress=False,
        max_piece_length=16,
    )
    try:
        tokenizer.train_from_iterator(texts, trainer)
    except Exception as error:  # tokenizers raises a bare Exception; this is its rim
        raise InputError(f"the vocabulary could not be trained: {error}") from error
    tokenizer = _in_order(tokenizer)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = decoders.Metaspace(replacement=_WORD_MARK, prepend_scheme="first")
    if tokenizer.get_vocab_size() < 0.9 * spec.vocab_size:
        raise InputError(
            f"the corpus yields {tokenizer.get_vocab_size()} pieces of the {spec.vocab_size} asked for; give more text "
            "or --set student.tokenizer.vocab_size=…"
        )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
    )


def with_token_types(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same vocabulary with BERT's template: `<s> A </s> B </s>`, the second text and its end of type 1."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    first, last = (f"{token}" for token in (tokenizer.cls_token, tokenizer.sep_token))
    backend.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(first, tokenizer.cls_token_id), (last, tokenizer.sep_token_id)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **tokenizer.special_tokens_map,
        model_max_length=tokenizer.model_max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def _in_order(trained: Tokenizer) -> Tokenizer:
    """The same pieces numbered by falling probability: the trainer's own order differs from run to run.

    The mask takes the space before it, as CamemBERT's does: a masked word has its `▁` masked with it.
    """
    scores = _settled(dict(json.loads(trained.to_str())["model"]["vocab"]))
    pieces = sorted((p for p in scores if p not in SPECIAL_TOKENS), key=lambda piece: (-scores[piece], piece))
    vocabulary = [(token, 0.0) for token in SPECIAL_TOKENS] + [(piece, scores[piece]) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=SPECIAL_TOKENS.index("<unk>")))
    tokenizer.add_special_tokens(
        [AddedToken(token, lstrip=token == "<mask>", special=True) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def _settled(scores: dict[str, float]) -> dict[str, float]:
    """The same scores in every run: sums that are added up in another order differ in their last digits, and letters
    that training dropped come back at the lowest score, each 0.0001 below the one before, in an arbitrary order.
    """
    lowest = min(scores.values())
    returned = lowest + 0.0001 * sum(len(piece) == 1 for piece in scores)
    return {
        piece: round(lowest if len(piece) == 1 and score < returned else score, 9) for piece, score in scores.items()
    }


def _sample(lines: Iterable[str], budget: int) -> Iterator[str]:
    """Lines up to `budget` bytes of UTF-8; the caller spreads them over the corpus."""
    spent = 0
    for line in lines:
        spent += len(line.encode())
        if spent > budget:
            return
        yield from (line[i : i + _MAX_LINE] for i in range(0, len(line), _MAX_LINE))
