"""The student of a teacher: fewer layers, started from the teacher's own weights."""

from transformers import PreTrainedModel

from affinage.errors import InputError
from affinage.models.build import student_masked_lm
from affinage.models.layout import depth_of, widths_of
from affinage.models.transfer import layer_map, transfer_
from affinage.recipe import StudentSpec


def student_layers(spec: StudentSpec, teacher_layers: int) -> tuple[int, ...]:
    """For each student layer, the teacher layer it starts from. Raises: InputError where the map does not fit."""
    if spec.num_hidden_layers is not None:
        wanted = spec.num_hidden_layers
    elif isinstance(spec.layers, tuple):
        wanted = len(spec.layers)
    else:
        wanted = (teacher_layers + 1) // 2
    if spec.layers == "odd" and spec.num_hidden_layers is None:
        wanted = teacher_layers // 2
    if wanted < 1:
        raise InputError(f"student.layers {spec.layers!r} takes no layer of the teacher's {teacher_layers}")
    if wanted > teacher_layers:
        raise InputError(f"student.num_hidden_layers {wanted} exceeds the teacher's {teacher_layers} layers")
    return layer_map(spec.layers, teacher_layers, wanted)


def check_student(spec: StudentSpec, teacher: PreTrainedModel) -> None:
    """Raises: InputError where the spec asks for more than copying layers can give."""
    for key, theirs in widths_of(teacher.config).items():
        wanted = getattr(spec, key)
        if wanted is not None and wanted != theirs:
            raise InputError(
                f"student.{key} {wanted} differs from the teacher's {theirs}; a student starts from the teacher's "
                "layers and keeps their widths: leave it out"
            )
    if spec.architecture not in (None, teacher.config.model_type):
        raise InputError(
            f"student.architecture {spec.architecture} differs from the teacher's {teacher.config.model_type}; "
            "leave it out"
        )
    for key in ("max_length", "tokenizer"):
        if getattr(spec, key) is not None:
            raise InputError(f"student.{key}: a student shares the teacher's; leave it out")


def make_student(teacher: PreTrainedModel, spec: StudentSpec) -> tuple[PreTrainedModel, tuple[int, ...]]:
    """A student with the teacher's embeddings, vocabulary head and chosen layers, and the map of these.

    Raises: InputError where the map leaves the teacher or the shape differs.
    """
    check_student(spec, teacher)
    depth = depth_of(teacher.config)
    layers = student_layers(spec, depth)
    student = student_masked_lm(teacher, layers=len(layers), dropout=spec.dropout)
    transfer_(teacher, student, layers=layers)
    return student, layers
