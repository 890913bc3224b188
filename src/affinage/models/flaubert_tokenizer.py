"""FlauBERT's tokenizer, which is slow Python, as a BPE of the library tokenizers; and where the two differ.

FlauBERT cuts words as Moses does (Koehn et al. 2007) and these into pieces by BPE (Sennrich et al. 2016). The pieces
are the same here; Moses' rules are stated as far as one pass of regular expressions can, from sacremoses' own tables.
"""

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import FlaubertTokenizer, PreTrainedTokenizerFast

from affinage.errors import InputError

log = logging.getLogger(__name__)

DIFFERS = "affinage_differs"
"""entry of tokenizer_config.json that says on how many texts the two differ, where they do"""
_SAMPLE = 400
"""texts that are compared"""
_FIRST, _END, _PAD, _UNKNOWN, _MASK = "<s>", "</s>", "<pad>", "<unk>", "<special1>"
_REWRITTEN = {
    r"\) ([.!:?;,])": (r"(?<=\)) (?=[.!:?;,])", ""),
    r"(\d) %": (r"(?<=\d) (?=%)", ""),
    "(\\d)\u00a0(\\d)": (r"(?<=\d)\x{00A0}(?=\d)", ","),
}
"""substitutions of sacremoses that put groups back, said without groups; its quotation marks after dots are below"""
_MARKS_AFTER_DOTS = tuple((rf'(?<!\.){re.escape(dots)}"(?=\s*[^<])', f'"{dots}') for dots in (".", "..", "..."))


@dataclass(frozen=True)
class Agreement:
    """How far two tokenizers agree on some texts."""

    texts: int
    differing: tuple[str, ...]
    """those of which they make other ids"""

    def __str__(self) -> str:
        return f"{len(self.differing)} of {self.texts} texts"


def needs_building(folder: str | Path, model_type: str) -> bool:
    """Whether a folder has FlauBERT's own files alone, without a tokenizer.json."""
    files = [Path(folder) / name for name in ("vocab.json", "merges.txt")]
    return (
        model_type == "flaubert" and all(map(Path.is_file, files)) and not (Path(folder) / "tokenizer.json").is_file()
    )


def flaubert_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The BPE of a folder's vocab.json and merges.txt, compared with FlauBERT's own tokenizer on French texts.

    Where they differ, the tokenizer says so in its config (`differs`). A row begins with `<s>`, which is its cls token.

    Raises: InputError where sacremoses is missing, with which the words are cut, or the files are none of FlauBERT's.
    """
    try:
        import sacremoses
    except ImportError:
        raise InputError(
            f"model '{folder}': FlauBERT's tokenizer cuts words with the package sacremoses; install it with: pip "
            "install 'affinage[flaubert]', or put a tokenizer.json beside its vocab.json"
        ) from None
    vocabulary, merges, lower = _read(Path(folder))
    backend = _backend(vocabulary, merges, lower=lower, moses=sacremoses)
    told: dict[str, Any] = {}
    files = {"vocab_file": "vocab.json", "merges_file": "merges.txt"}
    slow = FlaubertTokenizer(**{key: str(Path(folder) / name) for key, name in files.items()}, do_lowercase=lower)
    found = agreement(backend, slow, sample())
    if found.differing:
        told = {DIFFERS: str(found)}
        log.warning(
            "'%s': a BPE of the library tokenizers stands for FlauBERT's slow tokenizer, and makes other pieces of %s, "
            "such as: %s", folder, found, found.differing[0][:80],
        )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=_FIRST,
        cls_token=_FIRST,
        eos_token=_END,
        sep_token=_END,
        pad_token=_PAD,
        unk_token=_UNKNOWN,
        mask_token=_MASK,
        model_input_names=["input_ids", "attention_mask"],
        **told,
    )


def differs(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """On how many texts a tokenizer that was built here differs from the slow one; None where on none."""
    found = tokenizer.init_kwargs.get(DIFFERS)
    return found if isinstance(found, str) else None


def refuse_differing(tokenizer: PreTrainedTokenizerFast, *, where: str | Path, what: str) -> None:
    """Raises: InputError where the tokenizer makes other pieces of some texts than FlauBERT's; `what` needs its own."""
    if told := differs(tokenizer):
        raise InputError(
            f"model '{where}': {what} needs a fast tokenizer with offsets; FlauBERT's own is slow, without them, and "
            f"the BPE that stands for it makes other pieces of {told}; fine-tune on whole texts, or take another model"
        )


def agreement(fast: Tokenizer, slow: FlaubertTokenizer, texts: Iterable[str]) -> Agreement:
    """Compare two tokenizers by the ids that they make of texts."""
    read = list(texts)
    return Agreement(len(read), tuple(text for text in read if fast.encode(text).ids != slow(text)["input_ids"]))


def sample() -> list[str]:
    """French texts that come with affinage: reviews."""
    folder = resources.files("affinage.assets") / "data" / "sentiment"
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in islice(lines, _SAMPLE)]


def _read(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]], bool]:
    """Vocabulary, merges and whether texts are lower-cased. Raises: InputError where the files say none of it."""
    try:
        vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        said = folder / "tokenizer_config.json"
        settings = json.loads(said.read_text(encoding="utf-8")) if said.is_file() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"model '{folder}': its vocab.json or merges.txt cannot be read: {error}") from None
    wanted = (_FIRST, _END, _PAD, _UNKNOWN, _MASK)
    if not isinstance(vocabulary, dict) or (missing := [token for token in wanted if token not in vocabulary]):
        lacks = "" if not isinstance(vocabulary, dict) else f": {', '.join(missing)} missing"
        raise InputError(f"model '{folder}': its vocab.json is no vocabulary of FlauBERT's{lacks}")
    pairs = [(parts[0], parts[1]) for line in lines if len(parts := line.split()) >= 2]  # a third one is a count
    usable = [pair for pair in pairs if {*pair, "".join(pair)} <= vocabulary.keys()]
    return vocabulary, usable, bool(settings.get("do_lowercase", False))


def _backend(vocabulary: dict[str, int], merges: Sequence[tuple[str, str]], *, lower: bool, moses: Any) -> Tokenizer:
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=list(merges), unk_token=_UNKNOWN, end_of_word_suffix="</w>")
    )
    backend.normalizer = _normalizer(moses, lower=lower)
    backend.pre_tokenizer = _pre_tokenizer(moses.MosesTokenizer(lang="fr"))
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    named = (_FIRST, _END, _PAD, _UNKNOWN, *(token for token in vocabulary if token.startswith("<special")))
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in named])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{_FIRST} $A {_END}",
        pair=f"{_FIRST} $A {_END} $B {_END}",
        special_tokens=[(_FIRST, vocabulary[_FIRST]), (_END, vocabulary[_END])],
    )
    return backend


def _normalizer(moses: Any, *, lower: bool) -> normalizers.Normalizer:
    """Moses' normalisation of punctuation, in its order: each substitution whose replacement is plain text."""
    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFC()]
    if lower:
        steps.append(normalizers.Lowercase())
    punctuation = moses.MosesPunctNormalizer(lang="fr")
    for pattern, replacement in (*punctuation.REPLACE_UNICODE_PUNCTUATION, *punctuation.substitutions):
        if pattern.startswith(r"(\.+)"):
            steps += [normalizers.Replace(Regex(found), put) for found, put in _MARKS_AFTER_DOTS]
            continue
        found, put = _REWRITTEN.get(pattern, (pattern, replacement))
        if "\\g<" not in put:
            steps.append(normalizers.Replace(Regex(found), put))
    unprintable = normalizers.Replace(Regex(r"\p{C}"), "")
    return normalizers.Sequence([*steps, unprintable, normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()])


def _pre_tokenizer(moses: Any) -> pre_tokenizers.PreTokenizer:
    """Moses' words: signs stand apart, an apostrophe ends its word, a full stop stays with abbreviations."""
    numbers = set(moses.NUMERIC_ONLY_PREFIXES)
    short = sorted({p for p in moses.NONBREAKING_PREFIXES if "#" not in p and p not in numbers})
    kept = "".join(f"(?<!\\A{re.escape(p)})(?<!\\s{re.escape(p)})" for p in short)
    dotted = "".join(rf"(?<!\.[^\s.]{{{n}}}\p{{L}})" for n in range(16))  # U.S., 0.15ms, Object.prototype
    final = rf"(?<=[^\s.]){kept}{dotted}\.(?=\s(?!\p{{Ll}})|\s?\z)"
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[^[:alnum:]\s.'`,\-]"), "isolated"),
            pre_tokenizers.Split(Regex(r"\.{2,}"), "isolated"),
            pre_tokenizers.Split(Regex(r"(?<!\p{N}),|,(?!\p{N})"), "isolated"),
            pre_tokenizers.Split(Regex(r"(?<![[:alpha:]])'|'(?![[:alpha:]])"), "isolated"),
            pre_tokenizers.Split(Regex(r"(?<=[[:alpha:]])'(?=[[:alpha:]])"), "merged_with_previous"),
            pre_tokenizers.Split(Regex(final), "isolated"),
            pre_tokenizers.WhitespaceSplit(),
        ]
    )
