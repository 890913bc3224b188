"""What the pieces of a vocabulary are: where words start, and what stands for a piece in another vocabulary."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tokenizers import Tokenizer, models

_WORD_MARK = "▁"
_BYTE_LEVEL_SPACE = "Ġ"


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class HasPieces(Protocol):
    """The part of a transformers tokenizer that its pieces are told by."""

    @property
    def backend_tokenizer(self) -> Any: ...
    @property
    def all_special_ids(self) -> Any: ...
    def get_vocab(self) -> dict[str, int]: ...


@dataclass(frozen=True)
class BarePieces:
    """The same of a tokenizer without transformers."""

    backend_tokenizer: Tokenizer
    all_special_ids: tuple[int, ...]

    def get_vocab(self) -> dict[str, int]:
        """piece -> id"""
        return self.backend_tokenizer.get_vocab()


@dataclass(frozen=True)
class Piece:
    """A piece without the mark of its vocabulary's kind."""

    text: str
    """empty for a fragment of a character, as byte-level vocabularies have them"""
    spaced: bool
    """whether it stands behind a space (WordPiece: it does not continue a word)"""
    continues: bool
    """whether it continues a word: what is glued on and begins with a letter, a digit or a part of one"""


def starts_word(tokenizer: HasPieces) -> list[bool]:
    """For each id, whether its piece starts a word (special tokens do)."""
    pieces = pieces_of(tokenizer)
    flags = [True] * (max(tokenizer.get_vocab().values()) + 1)
    for index, piece in pieces.items():
        flags[index] = not piece.continues
    return flags


def parts_in(old: "PreTrainedTokenizerFast", new: "PreTrainedTokenizerFast") -> list[list[int]]:
    """For each id of `new`, the ids of `old` whose mean embedding starts it.

    A shared piece (same text, same place in a word) is one id, a special token the one of the same role, any other
    piece the pieces that `old` cuts its text into; none where `old` knows no part of it.
    """
    roles = ("cls_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "mask_token_id")
    parts: list[list[int]] = [[] for _ in range(max(new.get_vocab().values()) + 1)]
    for role in roles:
        if getattr(new, role) is not None and getattr(old, role) is not None:
            parts[getattr(new, role)] = [getattr(old, role)]
    known = {(piece.text, piece.spaced): index for index, piece in pieces_of(old).items() if piece.text}
    behind_space = " " if _is_byte_level(old) else ""
    for index, piece in pieces_of(new).items():
        if not piece.text:
            continue
        same = known.get((piece.text, piece.spaced))
        if same is None and not piece.text[0].isalnum():  # WordPiece does not tell whether punctuation follows a space
            same = known.get((piece.text, not piece.spaced))
        if same is not None:
            parts[index] = [same]
            continue
        text = (behind_space if piece.spaced else "") + piece.text
        ids = old.backend_tokenizer.encode(text, add_special_tokens=False).ids
        parts[index] = [i for i in ids if i != old.unk_token_id]
    return parts


def pieces_of(tokenizer: HasPieces) -> dict[int, Piece]:
    """id -> piece, special tokens left out."""
    model = tokenizer.backend_tokenizer.model
    special = set(tokenizer.all_special_ids)
    vocabulary = {index: piece for piece, index in tokenizer.get_vocab().items() if index not in special}
    if isinstance(model, models.WordPiece):
        return {index: _wordpiece(piece, model.continuing_subword_prefix) for index, piece in vocabulary.items()}
    if _is_byte_level(tokenizer):
        return {index: _byte_level(piece) for index, piece in vocabulary.items()}
    return {index: _metaspace(piece) for index, piece in vocabulary.items()}


def _is_byte_level(tokenizer: HasPieces) -> bool:
    if not isinstance(tokenizer.backend_tokenizer.model, models.BPE):
        return False
    vocabulary = tokenizer.get_vocab()
    return _BYTE_LEVEL_SPACE in vocabulary and _WORD_MARK not in vocabulary


def _wordpiece(piece: str, prefix: str) -> Piece:
    glued = piece.startswith(prefix) and piece != prefix
    return Piece(piece[len(prefix) :] if glued else piece, not glued, glued)


def _metaspace(piece: str) -> Piece:
    spaced = piece.startswith(_WORD_MARK)
    return Piece(piece.lstrip(_WORD_MARK), spaced, not spaced and piece[:1].isalnum())


def _byte_level(piece: str) -> Piece:
    spaced = piece.startswith(_BYTE_LEVEL_SPACE)
    try:
        text = bytes(_BYTES[character] for character in piece).decode("utf-8").lstrip(" ")
    except KeyError:  # an added token, written as it is
        text = piece
    except UnicodeDecodeError:
        return Piece("", spaced, not spaced)
    return Piece(text, spaced, not spaced and text[:1].isalnum())


def _byte_alphabet() -> dict[str, int]:
    """Character -> byte, as GPT-2 writes bytes: the printable ones as they are, the others from U+0100 on, in order."""
    printable = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_alphabet()
