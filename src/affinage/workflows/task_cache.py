"""What the teachers say of a task's rows, kept on disk: for a stage's later epochs, or for other runs too."""

import logging
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from affinage.data.taught import TaughtRows
from affinage.distillation.cache import TeacherCache, refuse_other_cache
from affinage.distillation.objective import build_losses, head_of
from affinage.distillation.task_objective import LOGITS
from affinage.errors import InputError
from affinage.recipe import Stage
from affinage.training.processes import processes

log = logging.getLogger(__name__)

Identity = dict[str, object]
"""name of what the logits depend on -> its fingerprint"""


def check_logits_cache(stage: Stage) -> None:
    """Raises: InputError where the recipe asks for a cache that could not serve the stage."""
    if stage.teacher_cache != "off" and (asked := _inner(stage)):
        raise InputError(
            f"stage '{stage.name}': on a task teacher_cache keeps the teacher's logits alone, and the losses need "
            f"{', '.join(sorted(asked))} of the teacher; leave teacher_cache out"
        )


def refuse_other_logits(folder: Path, stages: Sequence[Stage], made_of: Identity) -> None:
    """Asked before any long work. Raises: InputError where `folder` holds logits of another teacher, or other rows."""
    for stage in stages:
        refuse_other_cache(*_place(folder, stage, made_of))


def logits_cache(
    stage: Stage,
    rows: TaughtRows,
    teachers: Sequence[PreTrainedModel],
    *,
    shared: Path | None,
    own: Path,
    made_of: Identity,
) -> TeacherCache | None:
    """The cache in the folder `shared` by runs, or in the stage's `own` where its recipe wants one; else None.

    Raises: InputError where what lies there was made of something else, or the disk has no room.
    """
    if (shared is None and stage.teacher_cache == "off") or _inner(stage):
        return None
    folder, made_of = _place(own if shared is None else shared, stage, made_of)
    head = head_of(teachers[0])
    of_tokens = head in ("token", "span")
    with processes().main_process_first():
        cache = TeacherCache(
            folder,
            variants=1,
            rows=len(rows),
            tokens=max(len(row.input_ids) for row in rows.rows) if of_tokens else 1,
            width=2 if head == "span" else int(teachers[0].config.num_labels or 0),
            dtype="float32" if stage.teacher_cache == "off" else stage.teacher_cache,
            made_of=made_of,
        )
    log.info("what the teacher says is kept in '%s', %.3f GB", folder, cache.size_bytes / 1e9)
    return cache


def _place(folder: Path, stage: Stage, made_of: Identity) -> tuple[Path, Identity]:
    """Rows of another length are others: they have a folder of their own."""
    length = stage.training.row_length
    return folder / f"rows-of-{length}", {**made_of, "row_length": length}


def _inner(stage: Stage) -> frozenset[str]:
    """What a stage needs of its teacher besides logits."""
    losses = build_losses(stage.losses, teacher=True, on="task")
    return frozenset[str]().union(*(loss.teacher_needs for loss in losses)) - LOGITS
