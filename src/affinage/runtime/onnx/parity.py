"""Whether a graph gives the model's own answers: both read the same rows, every logit is compared."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinage.data.encoding import Row
from affinage.errors import CheckFailed
from affinage.runtime.facts import Engine, ModelKind
from affinage.runtime.onnx.config import Parity

TOLERANCE = 1e-4
"""of a float32 graph: largest difference of two logits, as a share of the largest logit or of 1"""
LEAST_AGREEMENT = 0.95
"""of an int8 graph: share of equal answers"""
LEAST_COSINE = 0.98
"""of two vectors that count as the same answer"""
_BATCH = 8
Floats = NDArray[Any]


def compare(ours: Engine, reference: Engine, rows: Sequence[Row], kind: ModelKind) -> Parity:
    """How far the outputs lie apart, and how many answers are the same."""
    pairs = list(zip(_outputs(ours, rows, kind), _outputs(reference, rows, kind), strict=True))
    spread = np.std([theirs[0] for _, theirs in pairs]) if kind == "regression" else 0.0
    same = np.concatenate([np.ravel(_same(a, b, kind, float(spread))) for a, b in pairs])
    return Parity(
        rows=len(rows),
        largest_difference=_largest(np.abs(a - b) for one in pairs for a, b in zip(*one, strict=True)),
        largest_logit=_largest(np.abs(b) for _, theirs in pairs for b in theirs),
        agreement=float(np.mean(same)),
    )


def _largest(arrays: Iterable[Floats]) -> float:
    """Over all of them; no number where one of them holds none, which Python's max would pass over."""
    return float(np.max([array.max() for array in arrays]))


def check(parity: Parity, *, int8: bool, least_agreement: float = LEAST_AGREEMENT) -> None:
    """Raises: CheckFailed where a float32 graph's logits, or an int8 graph's answers, are not the model's."""
    if int8:
        if not parity.agreement >= least_agreement:
            raise CheckFailed(
                f"the int8 graph gives {parity.agreement:.1%} of the model's answers on {parity.rows} rows, fewer than "
                f"{least_agreement:.1%}: nothing was kept; export without --int8, or allow it with --least-agreement"
            )
        return
    allowed = TOLERANCE * max(1.0, parity.largest_logit)
    if not parity.largest_difference <= allowed:  # false for what is no number, too
        raise CheckFailed(
            f"the graph's logits differ from the model's by up to {parity.largest_difference:.2g} on {parity.rows} "
            f"rows, more than {allowed:.2g}: nothing was kept; this is a bug in affinage, please report it"
        )


def masked_in_the_middle(rows: Iterable[Row], mask_id: int) -> list[Row]:
    """The rows with the mask token in place of their middle token, and in no other place."""
    made = []
    for row in rows:
        ids = np.where(row.input_ids == mask_id, row.input_ids[-1], row.input_ids)
        ids[len(ids) // 2] = mask_id
        made.append(replace(row, input_ids=ids))
    return made


def _outputs(engine: Engine, rows: Sequence[Row], kind: ModelKind) -> list[tuple[Floats, ...]]:
    run = engine.mask_logits if kind == "fill_mask" else engine.logits
    found = sorted(run(rows, batch_size=_BATCH), key=lambda pair: pair[0])
    return [outputs for _, outputs in found]


def _same(ours: tuple[Floats, ...], theirs: tuple[Floats, ...], kind: ModelKind, spread: float) -> Floats:
    """Which answers of a row are equal: of each token, of each label, or of the row."""
    if kind == "regression":
        return np.asarray(np.abs(ours[0] - theirs[0]) <= 0.1 * spread)
    if kind == "embedding":
        a, b = ours[0].astype(np.float64), theirs[0].astype(np.float64)
        return np.asarray(a @ b >= LEAST_COSINE * np.sqrt((a @ a) * (b @ b)))
    if kind == "multi_label":
        return np.asarray((ours[0] > 0) == (theirs[0] > 0))
    equal = [a.argmax(-1) == b.argmax(-1) for a, b in zip(ours, theirs, strict=True)]
    return np.asarray(np.logical_and.reduce(equal))
