"""The student of a fine-tuned teacher: as a general one is made of it, with the task's head, before any training."""

import torch
from transformers import PreTrainedModel

from affinage.distillation.student import make_student
from affinage.models.checkpoint import Kind
from affinage.models.heads import under_task_head, under_vocabulary_head
from affinage.models.layout import layout_of
from affinage.recipe import StudentSpec


def make_task_student(
    teacher: PreTrainedModel, spec: StudentSpec, kind: Kind
) -> tuple[PreTrainedModel, tuple[int, ...]]:
    """A student as `make_student` starts it, with the teacher's head where that fits, and the map of its layers.

    Raises: InputError where the map leaves the teacher or the shape cannot be made.
    """
    general, layers = make_student(under_vocabulary_head(teacher), spec)
    for key in ("id2label", "label2id", "problem_type"):
        setattr(general.config, key, getattr(teacher.config, key))
    if hasattr(general.config, "no_answer_threshold"):
        del general.config.no_answer_threshold  # the teacher's
    student = under_task_head(general, kind)
    if layers:
        _copy_head_(teacher, student)
    return student, layers


@torch.no_grad()
def _copy_head_(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """Copy what lies outside of the encoder, and its pooler, where all of it has the student's shapes."""
    base = f"{layout_of(student.config).base}."
    theirs = teacher.state_dict()
    outside = {
        name: tensor
        for name, tensor in student.state_dict().items()
        if not name.startswith(base) or name.startswith(f"{base}pooler.")
    }
    if all(name in theirs and theirs[name].shape == tensor.shape for name, tensor in outside.items()):
        for name, tensor in outside.items():
            tensor.copy_(theirs[name])
