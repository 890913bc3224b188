"""Which teacher layers a student starts from, against lists written down elsewhere."""

from itertools import pairwise
from typing import Any

import pytest

from affinage.distillation.student import student_layers
from affinage.errors import InputError
from affinage.models.transfer import layer_map
from affinage.recipe import StudentSpec


@pytest.mark.parametrize(
    ("choice", "teacher", "student", "expected"),
    [
        ("spread", 12, 6, (0, 2, 4, 7, 9, 11)),  # DistilBERT's extraction script
        ("spread", 6, 3, (0, 3, 5)),
        ("spread", 12, 4, (0, 4, 7, 11)),
        ("spread", 12, 1, (0,)),
        ("spread", 12, 12, tuple(range(12))),
        ("first", 12, 6, (0, 1, 2, 3, 4, 5)),  # Patient KD's student
        ("spread", 24, 2, (0, 23)),
        ("spread", 3, 6, (0, 0, 1, 1, 2, 2)),  # layers repeated for a deeper model
        ("spread", 1, 3, (0, 0, 0)),
        ("even", 12, 6, (0, 2, 4, 6, 8, 10)),
        ("even", 5, 3, (0, 2, 4)),
        ("odd", 12, 6, (1, 3, 5, 7, 9, 11)),
        ("last", 12, 6, (1, 3, 5, 7, 9, 11)),
        ("last", 12, 4, (2, 5, 8, 11)),
        ("last", 5, 3, (0, 2, 4)),
        ("last", 6, 6, tuple(range(6))),
        ((11, 0, 0), 12, 3, (11, 0, 0)),
        ([1, 2], 3, 2, (1, 2)),
    ],
)
def test_layer_map(choice: Any, teacher: int, student: int, expected: tuple[int, ...]) -> None:
    assert layer_map(choice, teacher, student) == expected


@pytest.mark.parametrize("teacher", range(1, 14))
def test_spread_rises_from_the_first_to_the_last_layer(teacher: int) -> None:
    for student in range(2, teacher + 1):
        chosen = layer_map("spread", teacher, student)
        assert (chosen[0], chosen[-1]) == (0, teacher - 1)
        assert all(a < b for a, b in pairwise(chosen))


@pytest.mark.parametrize(
    ("choice", "teacher", "student", "message"),
    [
        ((0, 1), 12, 3, "lists 2 layers for a student of 3"),
        ((0, 12), 12, 2, "layers 0 to 11"),
        ((-1, 3), 12, 2, "layers 0 to 11"),
        ("even", 12, 7, "layers 0 to 11"),
        ("odd", 5, 3, "layers 0 to 4"),
        ("last", 2, 3, "layers 0 to 1"),
    ],
)
def test_a_map_that_leaves_the_teacher_is_refused(choice: Any, teacher: int, student: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        layer_map(choice, teacher, student)


@pytest.mark.parametrize(
    ("spec", "teacher", "expected"),
    [
        ({}, 12, (0, 2, 4, 7, 9, 11)),
        ({}, 5, (0, 2, 4)),  # half, rounded up
        ({}, 1, (0,)),
        ({"layers": "even"}, 5, (0, 2, 4)),
        ({"layers": "odd"}, 5, (1, 3)),
        ({"layers": (4, 1)}, 12, (4, 1)),
        ({"num_hidden_layers": 3}, 12, (0, 6, 11)),
        ({"num_hidden_layers": 2, "layers": "odd"}, 12, (1, 3)),
        ({"num_hidden_layers": 2, "layers": "last"}, 12, (5, 11)),
        ({"layers": "last"}, 12, (1, 3, 5, 7, 9, 11)),
    ],
)
def test_the_layers_of_a_students_recipe(spec: dict[str, Any], teacher: int, expected: tuple[int, ...]) -> None:
    assert student_layers(StudentSpec(**spec), teacher) == expected


@pytest.mark.parametrize(
    ("spec", "teacher", "message"),
    [
        ({"num_hidden_layers": 7}, 6, "num_hidden_layers 7 exceeds the teacher's 6"),
        ({"num_hidden_layers": 2, "layers": (1,)}, 6, "lists 1 layers for a student of 2"),
        ({"layers": ()}, 6, "no layer"),
        ({"layers": "odd"}, 1, "no layer"),
    ],
)
def test_a_student_that_its_teacher_cannot_start_is_refused(spec: dict[str, Any], teacher: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        student_layers(StudentSpec(**spec), teacher)
