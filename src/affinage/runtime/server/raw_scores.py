"""Logits of classes instead of probabilities, for `raw_scores`."""

from typing import Any

from affinage.data.encoding import encode_pairs, encode_texts
from affinage.runtime.predictor import Predictor

_BATCH = 32


def raw_scores(predictor: Predictor, inputs: list[Any]) -> list[dict[str, Any]]:
    """For each text or pair "top": every class with its logit, the largest first; "truncated" as `predict` says it."""
    engine, tokenizer = predictor.loaded.engine, predictor.loaded.tokenizer
    results: list[dict[str, Any]] = [{}] * len(inputs)
    for paired, encode in ((False, encode_texts), (True, encode_pairs)):
        places = [i for i, given in enumerate(inputs) if isinstance(given, tuple) == paired]
        rows: Any = encode(tokenizer, [inputs[i] for i in places], max_length=predictor.max_length)
        for i, (logits,) in engine.logits(rows, batch_size=_BATCH):
            scored = zip(predictor.labels or ("value",), map(float, logits), strict=True)
            top = [{"label": label, "score": score} for label, score in sorted(scored, key=lambda one: -one[1])]
            results[places[i]] = {"top": top, **({"truncated": True} if rows[i].truncated else {})}
    return results
