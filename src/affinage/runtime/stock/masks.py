"""As transformers' fill-mask pipeline: the likeliest tokens of each masked place, special ones included."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from affinage.decoding.labels import softmax
from affinage.errors import InputError
from affinage.runtime.answers.base import Loaded, Result
from affinage.runtime.answers.masks import Masks
from affinage.runtime.inputs import check_text


def check(loaded: Loaded, value: Any, where: str) -> str:
    """A text with masks. Raises: InputError."""
    text = check_text(value, where)
    token = Masks(loaded).token
    if token not in text:
        raise InputError(f"{where}: expected at least one {token}, found none")
    return text


def fill(
    loaded: Loaded,
    inputs: list[str],
    *,
    batch_size: int,
    top_k: int = 5,
    targets: str | Sequence[str] | None = None,
) -> list[list[Any]]:
    """For every text its candidates, best first; where it has several masks, a list of them for each.

    `targets`: the only words to choose among; of one that is no token, the first token stands for it.
    """
    rows = loaded.rows(inputs)
    for row, text in zip(rows, inputs, strict=True):
        if not (row.input_ids == loaded.facts.mask_id).any():
            raise InputError(
                f"'{text[:60]}…': the mask lies beyond the {loaded.facts.max_length} tokens that the model reads"
            )
    allowed = None if targets is None else _target_ids(loaded, [targets] if isinstance(targets, str) else targets)
    found: list[list[Any]] = [[] for _ in rows]
    for i, (logits,) in loaded.engine.mask_logits(rows, batch_size=batch_size):
        ids, places = rows[i].input_ids, np.flatnonzero(rows[i].input_ids == loaded.facts.mask_id)
        every = [
            _candidates(loaded, ids, int(place), softmax(of_place), allowed, top_k, alone=len(places) == 1)
            for place, of_place in zip(places, logits, strict=True)
        ]
        found[i] = every[0] if len(every) == 1 else every
    return found


def _candidates(
    loaded: Loaded, ids: Any, place: int, probabilities: Any, allowed: list[int] | None, top_k: int, *, alone: bool
) -> list[Result]:
    """The best tokens for a place, each in the row's own text; that of other masks shows the special tokens."""
    choice = np.arange(len(probabilities)) if allowed is None else np.array(allowed)
    best = choice[np.argsort(-probabilities[choice], kind="stable")[:top_k]]
    made = []
    for token in best.tolist():
        filled = ids.copy()
        filled[place] = token
        made.append(
            {
                "score": float(probabilities[token]),
                "token": token,
                "token_str": loaded.tokenizer.decode([token], skip_special_tokens=False),
                "sequence": loaded.tokenizer.decode(filled.tolist(), skip_special_tokens=alone),
            }
        )
    return made


def _target_ids(loaded: Loaded, targets: Sequence[str]) -> list[int]:
    """Raises: InputError where a target has no token at all."""
    ids = []
    for target in targets:
        whole = loaded.tokenizer.token_to_id(target)
        pieces = [whole] if whole is not None else loaded.tokenizer.encode(target, add_special_tokens=False).ids
        if not pieces:
            raise InputError(f"target '{target}': this model's vocabulary has nothing for it")
        ids.append(pieces[0])
    return sorted(set(ids))
