"""What stands in the masked place of a text."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from affinage.data.pieces import BarePieces, starts_word
from affinage.decoding.fill_mask import best_tokens
from affinage.errors import InputError
from affinage.runtime.answers.base import Loaded, Options, Result, cut, top
from affinage.runtime.inputs import check_text

MASK = "<mask>"
_BEST = 5


@dataclass(frozen=True)
class Masks:
    """token_str, token, score, sequence, for texts with one <mask>."""

    loaded: Loaded

    @property
    def token(self) -> str:
        """The mask token as the tokenizer writes it. Raises: InputError where it has none."""
        mask_id = self.loaded.facts.mask_id
        token = None if mask_id is None else self.loaded.tokenizer.id_to_token(mask_id)
        if token is None:
            raise InputError("this model's tokenizer has no mask token")
        return str(token)

    def check(self, value: Any, where: str) -> str:
        text = check_text(value, where).replace(self.token, MASK).replace("[MASK]", MASK)
        if text.count(MASK) != 1:
            raise InputError(f"{where}: expected exactly one {MASK}, found {text.count(MASK)}")
        return text

    def answer(self, inputs: list[str], options: Options) -> list[Result]:
        # The pieces of Unigram and byte-level vocabularies hold the space before them: the mask stands for it too.
        facts, parts = self.loaded.facts, [text.partition(MASK) for text in inputs]
        masked = [before.rstrip() + self.token + after for before, _, after in parts]
        rows = self.loaded.rows(masked)
        for row, text in zip(rows, inputs, strict=True):
            if (row.input_ids == facts.mask_id).sum() != 1:
                raise InputError(
                    f"'{text[:60]}…': the mask lies beyond the {facts.max_length} tokens that the model reads"
                )
        count = options.top_k or _BEST
        results: list[Result] = [{}] * len(rows)
        for i, (logits,) in self.loaded.engine.mask_logits(rows, batch_size=options.batch_size):
            best = best_tokens(logits[0], top_k=count, excluded=facts.special_ids)
            ranked = [self._filled(inputs[i], token, score) for token, score in best]
            results[i] = {**ranked[0], **top(ranked, count), **cut(rows[i])}
        return results

    def _filled(self, text: str, token: int, score: float) -> Result:
        """The text with this token in its masked place; a piece that continues a word takes the space before it."""
        word = self.loaded.tokenizer.decode([token], skip_special_tokens=False).removeprefix("##").strip()
        before, _, after = text.partition(MASK)
        before = before if self._word_starts[token] else before.rstrip()
        return {"token_str": word, "token": token, "score": score, "sequence": before + word + after}

    @cached_property
    def _word_starts(self) -> list[bool]:
        return starts_word(BarePieces(self.loaded.tokenizer, self.loaded.facts.special_ids))
