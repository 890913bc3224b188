"""The cache of a distillation's teacher: whether it can serve, and what it holds."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from affinage.data.rows import PackedRows
from affinage.distillation.cache import TeacherCache
from affinage.distillation.objective import LAST, build_losses
from affinage.errors import InputError
from affinage.losses.base import DistillationLoss
from affinage.losses.likeliest import likeliest_suffice, width_of
from affinage.models.layout import widths_of
from affinage.recipe import Stage
from affinage.training.arguments import total_steps
from affinage.training.processes import processes

log = logging.getLogger(__name__)

_SERVES = LAST | {"head"}
"""What losses may need of a teacher whose last hidden states alone are kept: the vocabulary head follows from them."""


def check_teacher_cache(stage: Stage, losses: Sequence[DistillationLoss], *, streamed: bool) -> None:
    """Raises: InputError where the recipe asks for a cache that could not serve."""
    if stage.teacher_cache == "off":
        return
    if stage.masking.variants is None:
        raise InputError(
            "teacher_cache: the masks are new in every epoch, so nothing that the teacher sees comes again; say how "
            "many different masks a row gets with --set masking.variants=…, or leave teacher_cache out"
        )
    if streamed:
        raise InputError("teacher_cache: a streamed corpus is read once, nothing comes again; leave teacher_cache out")
    asked = sorted(frozenset().union(*(loss.teacher_needs for loss in losses)) - _SERVES)
    if asked:
        raise InputError(
            f"teacher_cache keeps the last hidden states alone, and the losses need {', '.join(asked)} of the teacher; "
            "leave teacher_cache out"
        )


def teacher_cache(
    stage: Stage, rows: PackedRows, teacher: PreTrainedModel, *, folder: Path, identity: Mapping[str, Any]
) -> TeacherCache | None:
    """The cache in `folder`, empty or as an interrupted run left it; None where the recipe wants none.

    `identity`: all that the states depend on. Raises: InputError where the disk has no room for it.
    """
    variants = stage.masking.variants
    if stage.teacher_cache == "off" or variants is None:
        return None
    settings, state = stage.training, processes()
    steps = total_steps(settings, len(rows), processes=state.num_processes)
    passes = steps * settings.batch_size * settings.gradient_accumulation_steps * state.num_processes / len(rows)
    if passes <= variants:
        log.warning(
            "the teacher cache will not be read: training passes %.1f times over %d different masks of each row",
            passes,
            variants,
        )
    made_of = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    cut = likeliest_suffice(build_losses(stage.losses, teacher=True), teacher.config.vocab_size)
    with state.main_process_first():
        cache = TeacherCache(
            folder,
            variants=variants,
            rows=len(rows),
            tokens=rows.row_length,
            width=widths_of(teacher.config)["hidden_size"] if cut is None else width_of(cut[0]),
            dtype=stage.teacher_cache,
            made_of=made_of,
        )
    what = "last hidden states" if cut is None else f"{cut[0]} likeliest tokens"
    log.info("the teacher's %s are kept on disk, %.2f GB while the run lasts", what, cache.size_bytes / 1e9)
    return cache
