"""Which teacher layer a student layer is compared with."""

from affinage.errors import InputError
from affinage.losses.base import Shape


def uniform_step(student: int, teacher: int) -> int:
    """N / M: student layer m of M answers to teacher layer m * N / M of N (Jiao et al. 2020, section 4.1)."""
    return teacher // student


def check_uniform(loss: str, student: Shape, teacher: Shape) -> None:
    """Raises: InputError where the teacher's depth is no multiple of the student's."""
    if teacher.layers % student.layers:
        fits = ", ".join(str(m) for m in range(1, teacher.layers + 1) if teacher.layers % m == 0)
        raise InputError(
            f"loss '{loss}' compares every student layer with one of the teacher's at equal distances: "
            f"{teacher.layers} layers are no multiple of the student's {student.layers}; "
            f"set student.num_hidden_layers to one of {fits}"
        )
